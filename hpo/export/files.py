"""Exported configurations as text: TOML (a study file with an empty space) or JSON, with their provenance."""

import datetime
import importlib.metadata
import json
import logging
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from hpo import strict_json
from hpo.database import attributes
from hpo.errors import HPOError, UsageError
from hpo.experiment.experiment import Experiment
from hpo.experiment.results import BestTrial
from hpo.experiment.trainer_version import recorded_versions
from hpo.settings import Settings
from hpo.studyfile.objectives import joined_objectives
from hpo.studyfile.provenance import without_nulls
from hpo.trainers.errors import TrainerError
from hpo.trainers.loading import load_trainers
from hpo.trainers.program_command import command_line
from hpo.trainers.protocol import Run
from hpo.trainers.registry import TRAINERS

log = logging.getLogger("hpo")


OF_THE_SEARCH = frozenset(
    {
        *("name", "samplers", "repeats", "budget", "pruner", "seed", "target", "audit", "slots", "fixed", "space"),
        *("epoch_timeout_seconds", "trial_timeout_seconds", "max_retries", "keep_folders", "stop_at_target"),
        *("try_first", "forbidden", "constraints", "like", "portfolio", "starts", "provenance"),
    }
)
"""Keys of a study file that say how to search. All others say how to train, and are exported as they are."""


def exported(experiment: Experiment, best: BestTrial, settings: Settings, rank: int = 1) -> dict[str, Any]:
    """The study file of one configuration, as a dict that TOML and JSON can hold. Needs none of its trainers.

    The data's fingerprint is added if the trainer is among those of this process.
    """
    content = experiment.content
    provenance: dict[str, Any] = {
        "experiment": experiment.name,
        "study": best.study,
        "sampler": best.sampler,
        "trial": best.number,
        "value": best.value,
        "values": _values(experiment, best),
        "seed": best.seed,
        "epochs": best.attrs.get(attributes.EPOCHS),
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "trainers": experiment.trainer_modules or None,
        "versions": {"torch": _version("torch"), "optuna": _version("optuna"), "hpo": _version("hpo-service")},
        **_commit(experiment, best),
        "trained_on": best.attrs.get(attributes.TRAINED_ON),
        "data": _fingerprint(experiment, best.given, settings),
    }
    if isinstance(start := best.attrs.get(attributes.START), dict):
        provenance["start"] = start
    if len(of_seeds := best.attrs.get(attributes.SEED_VALUES) or ()) > 1:
        provenance["seed_values"] = list(of_seeds)  # of which the value is the mean
    if best.runs > 1:
        # The value above is that of one seed, which gives it again; the configuration was chosen by the mean.
        provenance |= {"mean": best.mean, "std": best.std, "runs": best.runs}
    return {
        "name": f"{experiment.name}-{'best' if rank == 1 else f'top-{rank}'}",
        **{key: value for key, value in joined_objectives(content).items() if key not in OF_THE_SEARCH},
        "fixed": _fixed(experiment, best),
        "provenance": without_nulls(provenance),
    }


def export_text(
    experiment: Experiment, best: BestTrial, settings: Settings, rank: int, form: str, *, to_train: bool = False
) -> str:
    """The text of an exported configuration: a file to train (``toml``, ``json``); of a program also its command line
    (``args``) and its values (``yaml``, ``json``), unless it is ``to_train``.

    Raises UsageError for another form.
    """
    command = experiment.content.get("command")
    if command is None or form == "toml" or to_train:
        return as_text(exported(experiment, best, settings, rank), form)
    if form == "args":
        return shlex.join(program_arguments(experiment, best)) + "\n"
    if form == "yaml":
        # A JSON scalar is one of YAML, and so is a JSON list.
        lines = [f"{_yaml_key(name)}: {strict_json.dumps(value)}\n" for name, value in best.given.items()]
        return "".join(lines) or "{}\n"
    if form == "json":
        return strict_json.dumps(dict(best.given), indent=2) + "\n"
    raise UsageError(f"--format must be toml, json, args or yaml, not {form!r}")


def program_arguments(experiment: Experiment, best: BestTrial) -> list[str]:
    """The words of the command with which a program trains the configuration again."""
    content = experiment.content
    run = Run(
        seed=best.seed,
        study=best.study,
        experiment=experiment.name,
        trial=best.number,
        trial_folder=Path(f"{experiment.name}-best"),
    )
    return command_line(content["command"], content.get("args", "flags"), best.given, run)


def _yaml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name) else json.dumps(name)


def as_text(content: dict[str, Any], form: str) -> str:
    """The exported file as ``toml`` or ``json``; raises UsageError for another form."""
    if form == "json":
        return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"
    if form == "toml":
        note = "# Written by `hpo export`; train it with `hpo train FILE`.\n\n"
        return note + tomli_w.dumps(content)
    hint = "; args and yaml are for programs" if form in ("args", "yaml") else ""
    raise UsageError(f"--format must be toml or json, not {form!r}{hint}")


def _finite(value: Any) -> Any:
    """The same with ``"inf"``, ``"-inf"`` and ``"nan"`` as text, which a field that takes such a number reads again."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def load_if_possible(modules: str) -> None:
    """Imports the trainers that a person has named. An export is possible without them, so an error is only logged."""
    try:
        load_trainers(modules)
    except TrainerError as error:
        log.info("exporting without the trainer's code: %s", error)


def _fixed(experiment: Experiment, best: BestTrial) -> dict[str, Any]:
    """The table ``[fixed]``: the given values, and the defaults of the rest if the trainer's code is here."""
    if experiment.trainer in TRAINERS:
        try:
            return experiment.study_file.as_fixed(best.given)
        except HPOError as error:
            log.info("exporting the given values alone: %s", error)
    return without_nulls(dict(best.given))


def _fingerprint(experiment: Experiment, given: Mapping[str, Any], settings: Settings) -> dict[str, Any] | None:
    entry = TRAINERS.get(experiment.trainer)
    if entry is None or entry.check is None:
        return None
    try:
        return entry.check(experiment.study_file.configure(given), settings.data_dir, False)
    except Exception:
        # The data may be on the workers' machines alone; an export is still worth having.
        return None


def _values(experiment: Experiment, best: BestTrial) -> dict[str, float] | None:
    """The values of both objectives; None if there is one."""
    if best.second is None:
        return None
    first, second = experiment.objectives
    return {first.metric: best.value, second.metric: best.second}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(experiment: Experiment, best: BestTrial) -> dict[str, Any]:
    """The commit of the user's repository from which the trial's version was launched, if there was one."""
    trained_on = best.attrs.get(attributes.TRAINED_ON)
    source = trained_on.get("source") if isinstance(trained_on, dict) else None
    if not source:
        return {}
    with experiment.storage.engine.connect() as connection:
        version = recorded_versions(connection, experiment.study_ids).get(source)
    if version is None or version.commit is None:
        return {}
    return {"git_commit": version.commit, "uncommitted_changes": version.uncommitted}
