"""The signals that ask a worker to end: one exception, whatever is sent how often, and handlers as they were before."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hpo.worker.signals import SIGNALS, Interrupted, raising_interrupted


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_each_signal_raises_once(number: signal.Signals) -> None:
    before = {other: signal.getsignal(other) for other in SIGNALS}
    with raising_interrupted():
        with pytest.raises(Interrupted):
            send(number)
        # The same request from the launcher, the batch system and the terminal.
        for other in SIGNALS:
            os.kill(os.getpid(), other)
        time.sleep(0.05)
    assert {other: signal.getsignal(other) for other in SIGNALS} == before


PATIENCE = """
import os, signal, sys, time
from hpo.worker import signals
signals.SAME_REQUEST_SECONDS = 0.2
with signals.raising_interrupted():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except signals.Interrupted:
        time.sleep(float(sys.argv[2]))
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(0.1)
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("second", "after", "code"), [("SIGINT", 0.0, 7), ("SIGINT", 0.3, 130), ("SIGTERM", 0.3, 7), ("SIGHUP", 0.3, 7)]
)
def test_only_a_second_interrupt_of_a_person_is_impatient(second: str, after: float, code: int) -> None:
    environment = {**os.environ, "HPO_SUPERVISE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PATIENCE, second, str(after)], env=environment, timeout=60, check=False
    )
    assert done.returncode == code


def test_a_process_that_is_not_a_worker_alone_is_not_ended() -> None:
    """Inline, in a notebook: the second interrupt is an exception like the first."""
    environment = {name: value for name, value in os.environ.items() if name != "HPO_SUPERVISE"}
    done = subprocess.run(
        [sys.executable, "-c", PATIENCE, "SIGINT", "0.3"], env=environment, timeout=60, capture_output=True, text=True
    )
    assert done.returncode != 130
    assert done.stderr.rstrip().endswith("Interrupted")


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raising_interrupted():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
