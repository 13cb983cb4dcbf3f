"""What the commands have in common: opening what a person names, and showing what was found.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import shlex
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from hpo import strict_json

if TYPE_CHECKING:
    from hpo.database.storage import Storage
    from hpo.experiment.experiment import Experiment
    from hpo.loaded_experiment import LoadedExperiment
    from hpo.settings import Settings

MOST_REASONS = 5


def open_storage_of(settings: "Settings") -> "Storage":
    """The storage that the settings name; raises StorageError with one line on why not."""
    from hpo.database.storage import open_storage

    return open_storage(settings.storage, home=settings.home)


def load_named(settings: "Settings", name: str) -> "Experiment":
    """The experiment of that name; needs none of its trainers. Raises ExperimentError with the near miss."""
    from hpo.experiment.experiment import load_experiment

    return load_experiment(open_storage_of(settings), name)


def show(content: Any) -> None:
    """Prints a line, or a table as wide as it wants where nobody looks at a terminal."""
    from rich.console import Console

    if isinstance(content, str):
        print(content)
        return
    Console(width=None if sys.stdout.isatty() else 160).print(content)


def print_json(content: Any, indent: int | None = 2) -> None:
    print(strict_json.dumps(content, indent=indent))


def command_for(settings: "Settings", *words: str) -> str:
    """The command ``hpo WORDS`` as a shell takes it, with the options without which it would not find the same things.

    What the environment holds is left out; so is an address with a password, which is not printed.
    """
    from hpo.database.address import masked
    from hpo.settings import Settings

    own = Settings()
    takes_trainers = words[0] in ("launch", "retry", "worker", "train")
    options: list[str] = []
    if (
        settings.storage is not None
        and settings.storage != own.storage
        and masked(settings.storage) == settings.storage
    ):
        options += ["--storage", settings.storage]
    if settings.home is not None and settings.home != own.home:
        options += ["--home", str(settings.home)]
    if takes_trainers and settings.trainers != own.trainers:
        options += ["--trainers", settings.trainers]
    takes_address = words[0] in ("launch", "retry", "worker", "logs", "show", "export", "status", "delete", "dashboard")
    if takes_address and settings.checkpoint_dir is not None and settings.checkpoint_dir != own.checkpoint_dir:
        options += ["--checkpoint-dir", settings.checkpoint_dir]
    command, *arguments = words
    if any(argument.startswith("-") for argument in arguments[:1]):
        # Options first, so that nothing after it is taken for one.
        return shlex.join(["hpo", command, *arguments[1:], *options, "--", arguments[0]])
    return shlex.join(["hpo", command, *arguments, *options])


def end_interrupted() -> NoReturn:
    """What a launch that was interrupted ends with: how to go on. The table above it stays."""
    words = ["hpo", *sys.argv[1:]]
    # An address may hold a password, which is not printed.
    again = "" if any("://" in word for word in words) else f":\n  {shlex.join(words)}"
    print(f"interrupted; what was done is kept, the same command goes on{again}", file=sys.stderr)
    raise SystemExit(130)


def study_notes(study: dict[str, Any], *, verbose: bool = False) -> list[str]:
    """What the table has no column for: trials that cost no budget, a deleted study; if ``verbose``, also measures."""
    notes = []
    if study["drawn_by"]:
        name, _, reason = study["drawn_by"].partition(": ")
        notes.append(f"auto draws with {name}: {reason}")
    if study["infeasible"]:
        notes.append(f"{study['infeasible']} infeasible configurations were drawn again")
    if study["refused"]:
        notes.append(f"{study['refused']} enqueued trials had values that cannot be used, see their reason")
    if study["imported"]:
        notes.append(f"{study['imported']} finished trials were added by hand and count for nothing")
    if study["knowledge"]:
        notes.append(f"{study['knowledge']} imported trials inform its sampler; they cost no budget and are no result")
    if verbose and (seen := study["results_seen"]):
        notes.append(
            f"when its sampler drew, it had seen {seen['mean']:g} results on average while {seen['mean_running']:g} "
            "other trials ran"
        )
    if study["finished"] and (left := study["states"]["waiting"]):
        over = "its time was over" if study["seconds_left"] is not None else "its epochs were given out"
        trials = "1 trial" if left == 1 else f"{left} trials"
        notes.append(f"{trials} had not ended when {over}; a larger budget goes on with them")
    if verbose and study["busy_share"] is not None:
        notes.append(f"its workers' slots trained {study['busy_share']:.0%} of the time")
    if study["deleted"]:
        notes.append("somebody has deleted the study: the next launch makes it again")
    return [f"{study['name']}: {'; '.join(notes)}"] if notes else []


def measures_line(status: dict[str, Any]) -> str | None:
    """How well the workers' slots were used, over all studies; each study has a line of its own with ``-v``."""
    shares = [study["busy_share"] for study in status["studies"] if study["busy_share"] is not None]
    if not shares:
        return None
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return f"slots trained {low if low == high else f'{low} to {high}'} of the time (-v: by study)"


def runs_note(best: Any) -> str:
    """How sure the value of an exported configuration is: a mean over seeds, or one run."""
    if best.runs == 1:
        return ""
    return f"; mean {best.mean:.6g} over {best.runs} seeds, of which this run is the nearest"


def failure_lines(status: dict[str, Any], settings: "Settings") -> list[str]:
    """What failed, why, where its log is and how to run it again; [] if nothing did.

    Reasons that differ in numbers, addresses or paths alone count as one.
    """
    from hpo.experiment.status import num_failed
    from hpo.worker.failures import normalise

    total = num_failed(status)
    if not total:
        return []
    reasons: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for study in status["studies"]:
        for failure in study["failures"]:
            place = f"{study['sampler']}/{study['repeat']}"
            reasons.setdefault(normalise(failure["reason"]), []).append((place, failure))
    lines = [f"{total} of the budget's trials failed and gave no result:"]
    for failed in list(reasons.values())[:MOST_REASONS]:
        place, last = failed[-1]
        more = f", {len(failed)} trials failed so" if len(failed) > 1 else ""
        first, *others = last["reason"].splitlines() or ["no reason was recorded"]
        lines.append(f"  {first}{' …' if others else ''}")
        log = last["log"] or f"that of the worker {last['worker']}, in the folder logs of its home"
        lines.append(f"    {place}, trial {last['trial']}{more}; log: {log}")
    if len(reasons) > MOST_REASONS:
        lines.append(f"  and {len(reasons) - MOST_REASONS} other reasons: hpo status --json has them")
    lines.append("once their cause is mended, the same launch runs them again, or")
    lines.append(f"  {command_for(settings, 'retry', status['experiment'])}")
    return lines


def show_end(loaded: "LoadedExperiment", settings: "Settings", *, as_json: bool, verbose: bool = False) -> int:
    """What a launch ends with: the table, what failed, what to do next. Returns the exit code.

    1 if trials failed by an error or nothing can be exported: a script then does not go on as if it had a result. A
    configuration that breaks its process or device is named, and no error of a search in which others succeed.
    """
    from hpo.experiment.status import has_result, is_finished, num_errors, num_failed
    from hpo.launchers.progress import status_table

    status = loaded.status()
    code = 1 if num_errors(status) or not has_result(status) else 0
    if as_json:
        print_json(status, indent=None)
        return code
    show(status_table(status, verbose=verbose))
    print()
    for study in status["studies"]:
        if study["seconds_left"] is not None or study["states"]["waiting"]:
            for line in study_notes(study):
                show(line)
    for line in failure_lines(status, settings):
        print(line)
    if code == 0:
        show(f"best configuration:  {command_for(settings, 'export', loaded.name, '--output', 'best.toml')}")
    elif not num_failed(status) and is_finished(status):
        show("no trial has completed: there is no best configuration")
    show(f"comparison:          {command_for(settings, 'compare', loaded.name)}")
    show(f"dashboard:           {command_for(settings, 'dashboard')}")
    return code
