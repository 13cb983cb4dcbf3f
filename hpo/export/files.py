"""Exported configurations as text: TOML (a study file with an empty space) or JSON, with their provenance."""

import datetime
import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Any

import tomli_w

from hpo.database import attributes
from hpo.errors import UsageError
from hpo.experiment.experiment import Experiment
from hpo.export.best import BestTrial
from hpo.settings import Settings
from hpo.studyfile.model import StudyFile
from hpo.studyfile.provenance import without_nulls
from hpo.trainers.registry import TRAINERS


def exported(experiment: Experiment, best: BestTrial, settings: Settings, rank: int = 1) -> dict[str, Any]:
    """The study file of one configuration, as a dict that TOML and JSON can hold."""
    file = experiment.study_file
    provenance: dict[str, Any] = {
        "experiment": experiment.name,
        "study": best.study,
        "sampler": best.sampler,
        "trial": best.number,
        "value": best.value,
        "seed": best.seed,
        "epochs": best.attrs.get(attributes.EPOCHS),
        "exported": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"torch": _version("torch"), "optuna": _version("optuna"), "hpo": _version("hpo-service")},
        "git_commit": git_commit(),
        "trained_on": best.attrs.get(attributes.TRAINED_ON),
        "data": _fingerprint(file, best.given, settings),
    }
    return {
        "name": f"{experiment.name}-{'best' if rank == 1 else f'top-{rank}'}",
        "trainer": file.trainer,
        "metric": file.metric,
        "direction": file.direction,
        "value": file.value,
        "seed_libraries": file.seed_libraries,
        "work_in": file.work_in,
        **file.program_keys(),
        "fixed": file.as_fixed(best.given),
        "provenance": without_nulls(provenance),
    }


def as_text(content: dict[str, Any], form: str) -> str:
    """The exported file as ``toml`` or ``json``; raises UsageError for another form."""
    if form == "json":
        return json.dumps(content, indent=2) + "\n"
    if form == "toml":
        note = "# Written by `hpo export`; train it with `hpo train FILE`.\n\n"
        return note + tomli_w.dumps(content)
    raise UsageError(f"--format must be toml or json, not {form!r}")


def _fingerprint(file: StudyFile, given: dict[str, Any], settings: Settings) -> dict[str, Any] | None:
    entry = TRAINERS[file.trainer]
    if entry.check is None:
        return None
    try:
        return entry.check(file.configure(given), settings.data_dir, False)
    except Exception:
        # The data may be on the workers' machines alone; an export is still worth having.
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of this package's own checkout, or None where it is installed without one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
