"""What ``hpo launch`` and ``hpo.launch`` may be given in place of a study file, made into one.

A path, TOML text, a dict, a :class:`StudyFile`, an objective's name (``my_script.py:objective``), or a function: an
Optuna objective or a generator with ``@hpo.trainer``. With an objective or a function the study file's keys are
arguments of their own.
"""

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hpo.errors import StudyFileError, UsageError, near_miss
from hpo.launchers.registry import all_options
from hpo.settings import Settings
from hpo.studyfile.load import parse_study_file, read_table
from hpo.studyfile.model import StudyFile
from hpo.studyfile.objective import with_objective
from hpo.trainers.functions import SUFFIX, register_function, spec_for_workers
from hpo.trainers.loading import load_trainers
from hpo.trainers.objective_loading import OWN_STUDIES, is_objective_name, load_objective
from hpo.trainers.registry import TRAINERS, TrainerEntry

Trainers = str | Iterable[str | Path | Callable[..., Any]]
Source = str | Path | Mapping[str, Any] | StudyFile | Callable[..., Any]

SHORT = {"trials": "budget", "sampler": "samplers"}
"""Arguments that say a study file's key in fewer words."""
KEYS = frozenset({*StudyFile.own_keys(), *SHORT} - {"trainer", "provenance"})
"""The study file's keys that may be given as arguments with an objective or a function."""
OVERRIDES = {"gpus_per_trial": 64, "repeats": 10_000, "seeds_per_trial": 100}
"""Those that may be given beside a study file too, and override it -> the largest number."""

OF_OPTUNA = {
    "n_trials": "give trials=",
    "n_jobs": "give workers=: each is a process of its own",
    "timeout": "there is none: interrupt the launch, and the same launch goes on later",
    "callbacks": "they are not called: progress= gets the status, and trial.set_user_attr keeps what a trial found",
    "catch": "leave it out: an error fails its trial, which is tried again, and the search goes on",
    "gc_after_trial": "leave it out",
    "show_progress_bar": "leave it out: progress is shown",
    "directions": "give metric= and direction= as lists of two",
    "study_name": "give name=",
    "load_if_exists": "leave it out: a launch goes on with what is there",
}
"""Arguments of Optuna's create_study and optimize, and what to do instead."""


def read_study(
    study: Source, settings: Settings, keys: Mapping[str, Any] | None = None, launcher: str = "local"
) -> tuple[StudyFile, Settings]:
    """The study file of ``study``, and the settings with what the launcher's workers need to import for it.

    Raises:
        StudyFileError: with all mistakes at once.
        UsageError: for keys beside a study file, which says them itself, and for unknown ones.
        TrainerError: for a function or an objective that is none.
    """
    load_trainers(settings.trainers)
    given = {name: value for name, value in (keys or {}).items() if value is not None}
    parsed = _parsed(study, given)
    entry = TRAINERS[parsed.trainer]
    if launcher == "inline":
        return parsed, settings
    spec = spec_for_workers(entry, settings.home_path / "functions")
    if spec and spec.endswith(SUFFIX) and launcher != "local":
        raise UsageError(
            f"{entry.name} was defined here and the workers of the launcher {launcher!r} may be elsewhere: put it into "
            "a module that they can import"
        )
    if spec and spec not in settings.trainers.split(","):
        settings = dataclasses.replace(settings, trainers=",".join(filter(None, (settings.trainers, spec))))
    return parsed, settings


def _parsed(study: Source, given: dict[str, Any]) -> StudyFile:
    """``repeats`` may be given beside a study file too, every other key beside an objective or a function alone."""
    if isinstance(study, str) and takes_keys(study):
        return _from_keys(load_objective(study), given)
    if callable(study):
        return _from_keys(register_function(study), given)
    if others := given.keys() - OVERRIDES.keys():
        if isinstance(study, str | Path) and str(study).endswith(".py"):
            raise UsageError(f"name the function beside the script, such as {study}:objective")
        names = ", ".join(name for name in given if name in others)
        raise UsageError(f"{names} can be given with an objective or a function alone; the study file says it itself")
    overridden = {name: value for name, value in given.items() if name in OVERRIDES}
    for name, most in OVERRIDES.items():
        number = overridden.get(name, 1)
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} must be a whole number from 1 to {most}, not {number!r}")
    if isinstance(study, StudyFile):
        given = {"seeds_per_trial": None} if overridden.get("seeds_per_trial") == 1 else {}
        return study.model_copy(update={**overridden, **given})
    content, path, source = _table(study)
    return parse_study_file(with_objective({**content, **overridden}, path), source)


def _table(study: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], Path, str]:
    """The unchecked table of a study file, where it lies, and what messages call it."""
    if isinstance(study, Mapping):
        content = dict(study)
        if callable(content.get("trainer")):
            content["trainer"] = register_function(content["trainer"]).name
        return content, Path("a dict"), "the dict"
    if isinstance(study, str) and ("\n" in study or ("=" in study and not Path(study).exists())):
        try:
            return tomllib.loads(study), Path("a text"), "the text"
        except ValueError as error:
            raise StudyFileError("the text", [f"not TOML: {error}"]) from None
    return read_table(study), Path(study), str(study)


def _from_keys(entry: TrainerEntry, given: dict[str, Any]) -> StudyFile:
    content: dict[str, Any] = {"name": entry.name.replace(":", "-"), "trainer": entry.name}
    for name, value in given.items():
        if name not in KEYS:
            raise unknown_argument(name, KEYS)
        if name == "trials":
            content["budget"] = {"trials": value}
        elif name in ("sampler", "samplers"):
            content["samplers"] = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
        elif name in ("metric", "direction") and isinstance(value, str) and "," in value:
            content[name] = [part.strip() for part in value.split(",")]
        else:
            content[name] = value
    if entry.suggests:
        own = OWN_STUDIES.get(entry.name)
        if "budget" not in content and own is not None and own.n_trials:
            content["budget"] = {"trials": own.n_trials}
        if "budget" not in content and "fixed" not in content:
            raise UsageError("give the number of trials: --trials 100 (in Python trials=100)")
        first = own.direction if own is not None else "minimize"  # Optuna's default
        is_one = not isinstance(content.get("metric"), list | tuple) or len(content["metric"]) < 2
        content.setdefault("direction", first if is_one else [first, "minimize"])
    return parse_study_file(content, f"the arguments for {entry.name}")


def sorted_options(
    options: Mapping[str, Any], *, takes_keys: bool
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The arguments of ``hpo.launch`` as options of a launcher, settings, and keys of a study file.

    Raises:
        UsageError: for an argument that nothing takes, with the near miss.
    """
    of_settings = {field.name for field in dataclasses.fields(Settings)}
    of_launchers = set(all_options())
    keys = KEYS if takes_keys else frozenset(OVERRIDES)
    named = {"launcher", "workers", "trainers", "storage", "home", "data_dir", "progress", "settings"}
    for name in options:
        if name not in of_launchers | of_settings | keys:
            if name in KEYS:
                raise UsageError(f"{name} is a key of the study file: write it there; only a function takes it here")
            raise unknown_argument(name, of_launchers | of_settings | keys | named)
    return (
        {name: value for name, value in options.items() if name in of_launchers},
        {name: value for name, value in options.items() if name in of_settings - of_launchers},
        {name: value for name, value in options.items() if name in keys - of_launchers - of_settings},
    )


def takes_keys(study: Source) -> bool:
    """Whether a study file's keys are given beside it: a function, or the name of an objective."""
    if not isinstance(study, str):
        return callable(study)
    # A text with several lines is no path, and can be longer than one may be.
    return "\n" not in study and is_objective_name(study) and not Path(study).is_file()


def trainer_modules(trainers: Trainers | None) -> str | None:
    """Modules and functions as the settings name them; functions are registered here."""
    if trainers is None or isinstance(trainers, str):
        return trainers
    for function in trainers:
        if callable(function):
            register_function(function)
    return ",".join(str(trainer) for trainer in trainers if not callable(trainer))


def unknown_argument(name: str, known: Iterable[str]) -> UsageError:
    """The error for an argument that nothing takes, with the near miss or what to do in place of Optuna's."""
    if name in OF_OPTUNA:
        return UsageError(f"{name} is an argument of Optuna's; {OF_OPTUNA[name]}")
    return UsageError(f"there is no argument {name!r}{near_miss(name, sorted(known))}")
