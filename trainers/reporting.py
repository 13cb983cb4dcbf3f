"""``hpo.report``, ``hpo.should_stop`` and ``hpo.infeasible``, which a program calls that runs as a trial.

Outside of a trial the first two do nothing. Nothing but the standard library is imported here, so the import costs a
program a few milliseconds.
"""

import json
import numbers
import os
import signal
import threading
from types import FrameType
from typing import Any, NoReturn

from hpo.trainers.errors import Infeasible

METRICS_VARIABLE = "HPO_METRICS"
STOP_VARIABLE = "HPO_STOP_FILE"

_stop = threading.Event()
_is_listening = False


def report(*, epoch: int | None = None, **metrics: Any) -> None:
    """Reports metrics of an epoch: ``hpo.report(val_accuracy=0.97, epoch=3)``.

    ``epoch`` counts from 1; without it, each report of the study's metric is the next epoch. Give it if the program
    can resume from a checkpoint. Of several processes only the one with rank 0 (``RANK``) reports.

    Raises:
        TypeError: for a metric that is no number, or an epoch that is no whole number.
    """
    values: dict[str, float | int] = {}
    for name, value in metrics.items():
        if value is None:
            continue
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError(f"hpo.report: {name} = {value!r} is text; a number was expected")
        try:
            values[name] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"hpo.report: {name} is a {type(value).__name__}; a number was expected") from None
    if epoch is not None:
        if not isinstance(epoch, numbers.Integral) and not (hasattr(epoch, "__index__")):
            raise TypeError(f"hpo.report: epoch = {epoch!r} is no whole number")
        values["epoch"] = int(epoch)
    if os.environ.get("RANK", "0") == "0":
        _write(values)


def infeasible(reason: str) -> NoReturn:
    """Ends the trial because its configuration cannot be trained: ``hpo.infeasible("does not fit into memory")``.

    It costs no budget: another configuration is drawn in its place, and the sampler learns to avoid it. Any of several
    processes may call it, whatever its rank.

    Raises:
        Infeasible: always, so that it ends a program that is no trial too; what catches it changes nothing for a trial.
    """
    _write({"infeasible": str(reason)})
    raise Infeasible(str(reason))


def _write(values: dict[str, Any]) -> None:
    """Adds a line to the trial's file of metrics; nothing outside of a trial."""
    path = os.environ.get(METRICS_VARIABLE)
    if not path:
        return
    # One write in append mode: lines of several threads or processes do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(values).encode() + b"\n")
    finally:
        os.close(descriptor)


def should_stop() -> bool:
    """Whether the trial is to end now, because it was pruned or its worker ends: write what is to be kept, and return.

    The first call makes the program survive the SIGTERM that asks it to end, for the study file's
    ``stop_grace_seconds``. Call it once before the first epoch and then as often as convenient.
    """
    global _is_listening
    stop_file = os.environ.get(STOP_VARIABLE)
    if not stop_file:
        return False
    if not _is_listening and threading.current_thread() is threading.main_thread():
        _is_listening = True
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _note_stop)
    return _stop.is_set() or os.path.exists(stop_file)


def _note_stop(number: int, frame: FrameType | None) -> None:
    _stop.set()
