"""``trainer = "program"``: a program of the user's own as a trainer, any command line in any language.

The study file gives the command; metrics come from ``hpo.report``, from JSON lines or from regular expressions over the
program's output; ``hpo.infeasible`` or a JSON line says that a configuration cannot be trained. A trial that is pruned
or given back gets SIGTERM, ``stop_grace_seconds`` later SIGKILL, with all processes that it has started. What it writes
is the trial's log.
"""

import json
import os
import re
import signal
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpo.trainers.errors import Infeasible, ProgramError
from hpo.trainers.process_group import Guard, ProcessGroup
from hpo.trainers.program_command import ArgumentStyle, command_line
from hpo.trainers.program_environment import ProgramFiles, program_environment
from hpo.trainers.program_output import LineSplitter, MetricReader
from hpo.trainers.protocol import BuildOptions, Ended, EpochEnd, Event, Failed, Run, State
from hpo.trainers.registry import TrainerEntry, register
from hpo.trainers.trial_log import LOG_NAME, TrialLog

POLL_SECONDS = 0.05
"""How often the file of metrics is looked at."""
GATHER_SECONDS = 0.02
"""Shortest time between two readings, so that many short lines cost few wake-ups."""
SNAPSHOT_SECONDS = 1.0
"""Shortest time between two records of how far a program with checkpoints has come."""
INFEASIBLE_SECONDS = 1.0
"""How long a program may take to end by itself once it has said that its configuration is infeasible."""
RAISED_INFEASIBLE = f"{Infeasible.__module__}.{Infeasible.__qualname__}: "
"""How the last line of a traceback begins if a program has raised it."""


@dataclass(frozen=True)
class ProgramOptions:
    """What a study file says about its program.

    Attributes:
        command: the words of the command, with placeholders.
        args: how parameters are passed that the command does not place.
        metrics: a regular expression for each metric.
        objective: the study's metric.
        stop_grace_seconds: time between SIGTERM and SIGKILL.
    """

    command: tuple[str, ...]
    objective: str
    args: ArgumentStyle = "flags"
    metrics: Mapping[str, str] = field(default_factory=dict)
    stop_grace_seconds: float = 10.0


class ProgramTrainer:
    """The protocol over a program: one slot; an epoch for each report of the study's metric."""

    def __init__(self, options: ProgramOptions, threads: int = 1) -> None:
        self.capacity = 1
        self._options = options
        self._threads = threads
        self._guard = Guard()
        self._trial: _Trial | None = None

    def start(self, key: Hashable, config: Mapping[str, Any], run: Run) -> None:
        if self._trial is not None:
            raise RuntimeError("the slot is taken")
        self._trial = _Trial(key, config, run, self._options, self._threads, self._guard)

    def begin(self) -> None:
        """Starts the program of a trial now, and not with the next :meth:`advance`; raises what that would yield."""
        if self._trial is not None:
            self._trial.begin()

    def advance(self) -> list[Event]:
        if self._trial is None:
            return []
        trial = self._trial
        try:
            events = trial.advance()
        except BaseException as error:
            self.stop(trial.key)
            if not isinstance(error, Exception):
                raise
            return [Failed(trial.key, error)]
        if events and not isinstance(events[-1], EpochEnd):
            self._trial = None
        return events

    def stop(self, key: Hashable) -> None:
        if self._trial is not None and self._trial.key == key:
            trial, self._trial = self._trial, None
            trial.stop()

    def close(self) -> None:
        """Ends the program that runs, as :meth:`stop` does; a worker calls it before it gives its trials back."""
        if self._trial is not None:
            self.stop(self._trial.key)


class _Trial:
    """One run of the program."""

    def __init__(
        self,
        key: Hashable,
        values: Mapping[str, Any],
        run: Run,
        options: ProgramOptions,
        threads: int,
        guard: Guard,
    ) -> None:
        self.key = key
        self._values = values
        self._run = run
        self._options = options
        self._threads = threads
        self._guard = guard
        self._process: ProcessGroup | None = None
        self._files = ProgramFiles(run.folder)
        self._log = TrialLog(run.folder / LOG_NAME)
        self._output, self._reported = LineSplitter(), LineSplitter()
        self._read_bytes = 0
        self._read_after = 0.0
        self._snapshot_after = 0.0
        patterns = {name: re.compile(pattern) for name, pattern in options.metrics.items()}
        self._metrics = MetricReader(options.objective, patterns)
        if has_files(self._files.checkpoints):
            self._metrics.last_epoch = run.start_epoch

    def advance(self) -> list[Event]:
        """Waits for the next epochs or the end of the program."""
        self.begin()
        assert self._process is not None
        events: list[Event] = []
        while not events:
            self._process.wait(POLL_SECONDS)
            self._process.wait_for_end(self._read_after - time.monotonic())
            code = self._process.poll()  # asked before reading, so that what was written until then is read
            self._read(events)
            self._read_after = time.monotonic() + GATHER_SECONDS
            if code is not None:
                self._finish(code, events)
            elif self._metrics.infeasible is not None:
                self._process.wait_for_end(INFEASIBLE_SECONDS)
                self.stop()
                self._end_infeasible(self._metrics.infeasible, events)
        return events

    def _end_infeasible(self, reason: str, events: list[Event]) -> None:
        self._log.write(f"[hpo] infeasible: {reason}\n".encode(errors="backslashreplace"))
        events.append(Failed(self.key, Infeasible(reason)))

    def stop(self) -> None:
        """Ends the program: SIGTERM, the time that it has to write its files, SIGKILL."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            if process.poll() is None:
                self._files.stop.touch()
                process.terminate()
                deadline = time.monotonic() + self._options.stop_grace_seconds
                while process.poll() is None and (left := deadline - time.monotonic()) > 0:
                    process.wait(min(left, POLL_SECONDS))
                    self._log.write(process.read())
        finally:
            self._log.write(process.read())
            process.end()

    def begin(self) -> None:
        """Starts the program, if it is not started. Raises ProgramError if it cannot be."""
        if self._process is not None:
            return
        run = self._run
        self._files.checkpoints.mkdir(parents=True, exist_ok=True)
        self._files.stop.unlink(missing_ok=True)
        self._files.metrics.write_bytes(b"")
        self._files.params.write_text(json.dumps(dict(self._values)))
        command = command_line(self._options.command, self._options.args, self._values, run)
        cwd = None
        if run.work_in_folder:
            cwd = run.folder
            # The command's own files are named from where the experiment was launched.
            command = [str(Path(part).absolute()) if "/" not in part and _is_file(part) else part for part in command]
        self._log.write(f"[hpo] trial {run.trial}, attempt {run.attempt}: {command}\n".encode())
        try:
            earlier = run.folder if run.attempt else None
            self._process = ProcessGroup(
                self._guard, command, program_environment(run, self._files, self._threads), cwd, earlier
            )
        except OSError as error:
            text = f"the command {command[0]!r} cannot be started: {error.strerror}"
            self._log.write(f"[hpo] {text}\n".encode(errors="backslashreplace"))
            raise ProgramError(text) from error

    def _read(self, events: list[Event]) -> None:
        """Reads what has been written since the last time and adds the epochs that have ended."""
        assert self._process is not None
        data = self._process.read()
        if data:
            self._log.write(data)
            for line in self._output.lines(data):
                self._take(self._metrics.read(line), events)
        for line in self._reported.lines(self._new_reports()):
            self._take(self._metrics.read(line, is_json=True), events)

    def _new_reports(self) -> bytes:
        try:
            with self._files.metrics.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._read_bytes:  # the program has opened it anew
                    self._read_bytes = 0
                file.seek(self._read_bytes)
                data = file.read(2**22)
        except OSError:
            return b""
        self._read_bytes += len(data)
        return data

    def _take(self, epoch: tuple[int, dict[str, float]] | None, events: list[Event]) -> None:
        if epoch is None:
            return
        number, metrics = epoch
        events.append(EpochEnd(self.key, number, metrics, False, self._snapshot(number)))

    def _snapshot(self, epoch: int) -> Any:
        """Records how far a program has come that keeps checkpoints; without any, a retry starts from the beginning."""
        now = time.monotonic()
        if now < self._snapshot_after or not has_files(self._files.checkpoints):
            return None
        self._snapshot_after = now + SNAPSHOT_SECONDS
        state: State = {"program_epoch": epoch}
        return lambda: state

    def _finish(self, code: int, events: list[Event]) -> None:
        """The program has ended with ``code``: reads the rest and adds how the trial ends."""
        assert self._process is not None
        deadline = time.monotonic() + 1.0  # children in the background may go on writing
        size = -1
        while size != self._read_bytes and time.monotonic() < deadline:
            size = self._read_bytes
            self._read(events)
        for line in (self._output.last(),):
            self._take(self._metrics.read(line), events)
        for line in (self._reported.last(),):
            self._take(self._metrics.read(line, is_json=True), events)
        for note in self._metrics.notes:
            self._log.write(f"[hpo] {note}\n".encode(errors="backslashreplace"))
        process, self._process = self._process, None
        process.end()
        reason = self._metrics.infeasible
        if reason is None and code != 0 and self._metrics.last_lines:
            _, raised, text = self._metrics.last_lines[-1].partition(RAISED_INFEASIBLE)
            reason = text.strip() if raised else None
        if reason is not None:
            self._end_infeasible(reason, events)
            return
        last = " | ".join(line.strip() for line in list(self._metrics.last_lines)[-8:])
        ending = f"; its last lines: {last[-1500:]}" if last else "; it wrote nothing"
        if code != 0:
            events.append(Failed(self.key, ProgramError(f"the program {_ended(code)}{ending}")))
        elif not self._metrics.num_epochs and not self._metrics.last_epoch:
            what = f"the program ended with exit code 0, but {self._metrics.explanation()}"
            events.append(Failed(self.key, ProgramError(what + ending)))
        else:
            events.append(Ended(self.key))


def has_files(folder: Path) -> bool:
    try:
        return any(True for _ in folder.iterdir())
    except OSError:
        return False


def _is_file(name: str) -> bool:
    return Path(name).is_file()


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _build(options: BuildOptions) -> ProgramTrainer:
    program = options.program
    return ProgramTrainer(
        ProgramOptions(
            command=tuple(program["command"]),
            objective=program["objective"],
            args=program["args"],
            metrics=program.get("metrics", {}),
            stop_grace_seconds=program.get("stop_grace_seconds", 10.0),
        ),
        options.threads,
    )


register(
    TrainerEntry(
        name="program",
        config=None,
        build=_build,
        description="a program of your own: any command line, metrics from hpo.report, JSON lines or its output",
        max_slots=1,
        module=__name__,
    )
)
