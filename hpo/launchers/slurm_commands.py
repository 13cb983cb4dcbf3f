"""Slurm's commands as functions: one is run and its errors become ours, and the output of ``scontrol`` is read."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from hpo.errors import ExperimentError, UsageError

COMMAND_SECONDS = 60.0
SIGNAL_SECONDS = 60
"""Before its time limit a worker is asked to end; Slurm may be that much early."""


@dataclass(frozen=True)
class Task:
    """A task of an array, as ``scontrol`` shows it."""

    job: str
    place: int
    state: str
    exit_code: int
    reason: str
    has_limit: bool = True


def parse_tasks(text: str) -> list[Task]:
    """The tasks in the output of ``scontrol show job -o``; tasks that wait stand in one line together."""
    tasks = []
    for line in text.splitlines():
        fields: dict[str, str] = dict(re.findall(r"(\w+)=(\S*)", line))
        job = str(fields.get("ArrayJobId", fields.get("JobId", "")))
        code, _, number = fields.get("ExitCode", "0:0").partition(":")
        exit_code = -int(number) if number not in ("", "0") else int(code or 0)
        for place in _places(fields.get("ArrayTaskId", "")):
            state, reason = fields.get("JobState", ""), fields.get("Reason", "None")
            tasks.append(Task(job, place, state, exit_code, reason, fields.get("TimeLimit") != "UNLIMITED"))
    return tasks


def ranges(places: list[int]) -> str:
    """``0-2,5`` for 0, 1, 2, 5: Slurm refuses a list of a thousand numbers as too long."""
    parts: list[list[int]] = []
    for place in sorted(places):
        if parts and parts[-1][1] == place - 1:
            parts[-1][1] = place
        else:
            parts.append([place, place])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _places(text: str) -> Iterator[int]:
    """The numbers of ``0-2,5`` or ``1,3-4%2``."""
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)


def run_command(
    command: str, *arguments: str, script: str | None = None, environment: dict[str, str] | None = None
) -> str:
    """Runs one of Slurm's commands and returns its output.

    Raises:
        UsageError: if ``sbatch`` refuses what was asked for.
        ExperimentError: if the command fails otherwise.
    """
    try:
        done = subprocess.run(
            [command, *arguments],
            input=script,
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            # Ctrl-C is the launcher's.
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExperimentError(f"{command}: {error}") from None
    if done.returncode == 0:
        return done.stdout
    said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    kind = UsageError if command == "sbatch" else ExperimentError
    raise kind(f"Slurm refuses: {said}")
