"""``hpo logs``: what a trial has written, or what the workers of an experiment write.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import CheckpointOption, HomeOption, StorageOption
from hpo.cli.support import load_named
from hpo.errors import ExperimentError

if TYPE_CHECKING:
    from hpo.experiment.experiment import Experiment
    from hpo.settings import Settings

FOLLOW_SECONDS = 0.5


def logs(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    trial: Annotated[
        str | None,
        typer.Argument(
            help="The trial's number; SAMPLER/REPEAT/NUMBER if there are several studies. Without it, the ends of the "
            "workers' logs."
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", envvar="HPO_RAW", help="The bytes as they were written.")] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            envvar="HPO_FOLLOW",
            help="Go on with what is written, until the trial or all workers end.",
        ),
    ] = False,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            envvar="HPO_WHOLE",
            help="The workers' whole logs: files of this machine, or copies at the address of the checkpoints.",
        ),
    ] = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    checkpoint_dir: CheckpointOption = None,
) -> None:
    """Print a trial's log: the output of a program, or what run.log was given; or those of the workers."""
    from hpo.settings import Settings

    settings = Settings.given(storage=storage, home=home, checkpoint_dir=checkpoint_dir)
    found = load_named(settings, experiment)
    with contextlib.suppress(KeyboardInterrupt):
        if trial is None:
            _workers_logs(found, settings, follow=follow, whole=whole)
        else:
            _trial_log(found, trial, settings, raw=raw, follow=follow)


def _trial_log(found: "Experiment", trial: str, settings: "Settings", *, raw: bool, follow: bool) -> None:
    from hpo.experiment.trial_log import named_trial, trial_log
    from hpo.trainers.trial_log import as_text

    def read() -> bytes:
        return trial_log(found, trial, settings)

    def has_ended() -> bool:
        *_, trial_id = named_trial(found, trial)
        return found.storage.get_trial(trial_id).state.is_finished()

    if not follow:
        data = read()
        if raw:
            sys.stdout.buffer.write(data)
        else:
            text = as_text(data)
            sys.stdout.write(text if text.endswith("\n") or not text else f"{text}\n")
        return
    _follow(read, has_ended, (lambda data: data) if raw else (lambda data: as_text(data).encode()))


def _follow(read: Callable[[], bytes], has_ended: Callable[[], bool], shown: Callable[[bytes], bytes]) -> None:
    """Writes what comes to the log, until the trial has ended; whole lines, and the rest at the end."""
    written = 0
    while True:
        ended = has_ended()  # asked before reading, so that what was written until then is read
        try:
            data = read()
        except ExperimentError:
            if ended:
                raise
            data = b""  # it has written nothing yet
        if len(data) < written:
            written = 0  # the log was cut in its middle, or another attempt began
        until = len(data) if ended else data.rfind(b"\n") + 1
        if until > written:
            sys.stdout.buffer.write(shown(data[written:until]))
            sys.stdout.buffer.flush()
            written = until
        if ended:
            return
        time.sleep(FOLLOW_SECONDS)


def _workers_logs(found: "Experiment", settings: "Settings", *, follow: bool, whole: bool) -> None:
    """The end of each worker's log as the worker reports it, so that it needs no access to its machine.

    With ``whole`` the log itself, where this machine or the shared address has it; what follows are the reported ends.
    """
    from hpo.cli.show import printable
    from hpo.database.workers import read_workers
    from hpo.experiment.worker_logs import worker_log
    from hpo.trainers.trial_log import as_text

    seen: dict[str, list[str]] = {}
    while True:
        with found.storage.engine.connect() as connection:
            rows = read_workers(connection, found.study_ids)
        if not rows:
            raise ExperimentError(f"no worker of {found.name!r} has reported itself yet: hpo launch starts some")
        for row in rows:
            lines = str(row.report.get("last_lines") or "").splitlines()
            new = _after(seen.get(row.worker, []), lines)
            if row.worker not in seen or new:
                where = f"{row.report.get('host')}, process {row.report.get('pid')}"
                print(f"==> {printable(where)}: {printable(row.report.get('log') or 'it writes to no file')}")
                if whole and row.worker not in seen and (log := worker_log(found, row, settings)) is not None:
                    new = as_text(log).splitlines()
                for line in new:
                    print(f"  {printable(line)}")
            seen[row.worker] = lines
        sys.stdout.flush()
        if not follow or not any(row.alive for row in rows):
            return
        time.sleep(FOLLOW_SECONDS)


def _after(before: list[str], now: list[str]) -> list[str]:
    """The lines of ``now`` that come after those of ``before``, of which both may show only the end."""
    for start in range(len(before)):
        overlap = before[start:]
        if now[: len(overlap)] == overlap:
            return now[len(overlap) :]
    return now
