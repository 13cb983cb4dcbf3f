"""The signals that end a launch, sent to this very process."""

import os
import signal
import time

import pytest

from hpo.launchers import signals
from hpo.launchers.signals import END_SIGNALS, interruptible


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(1)


@pytest.mark.parametrize("number", END_SIGNALS, ids=lambda number: number.name)
def test_each_is_an_interrupt_and_handlers_come_back(number: signal.Signals) -> None:
    before = {other: signal.getsignal(other) for other in END_SIGNALS}
    with pytest.raises(KeyboardInterrupt), interruptible():
        send(number)
    assert {other: signal.getsignal(other) for other in END_SIGNALS} == before


def test_the_same_request_from_several_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SAME_REQUEST_SECONDS", 0.5)
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
        time.sleep(0.6)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
