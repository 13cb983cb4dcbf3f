"""The best configuration as a file, and a file trained again.

An exported file is a study file with an empty space plus ``[provenance]``, so ``hpo train`` and a next study read it
without a second format.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import tomli_w

import hpo
from hpo.database import attributes
from hpo.errors import ExperimentError, UsageError, near_miss
from hpo.trainers.metrics import checked_metrics
from hpo.studyfile.provenance import without_nulls
from hpo.settings import Settings
from hpo.studyfile.model import StudyFile, configure
from hpo.experiment.experiment import Experiment
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import BuildOptions, EpochEnd, Failed, Run
from hpo.trainers.registry import TRAINERS

BEST = """
SELECT t.study_id, t.number, v.value,
  (SELECT json_object_agg(key, value_json)::text FROM trial_user_attributes WHERE trial_id = t.trial_id)
FROM trials t JOIN trial_values v USING (trial_id)
WHERE t.study_id = ANY(:study_ids) AND t.state = 'COMPLETE' AND v.value IS NOT NULL
ORDER BY v.value {}, t.study_id, t.number LIMIT :top
"""

Report = Callable[[int, int, dict[str, float]], None]
"""Called after each epoch with the index of the seed, the epoch from 1 and its metrics."""


@dataclasses.dataclass(frozen=True)
class BestTrial:
    """A finished trial with its configuration; ``attrs`` are its user attributes."""

    study: str
    sampler: str
    number: int
    value: float
    config: dict[str, Any]
    seed: int
    attrs: dict[str, Any]


def best_trials(experiment: Experiment, sampler: str | None = None, top: int = 1) -> list[BestTrial]:
    """The best ``top`` COMPLETE trials of the experiment, or of one of its samplers, the best first.

    Raises:
        UsageError: for a sampler that the experiment does not have, or ``top`` below 1.
        ExperimentError: where no trial has completed yet.
    """
    labels = list(dict.fromkeys(study.sampler.label for study in experiment.studies))
    if sampler is not None and sampler not in labels:
        raise UsageError(
            f"the experiment {experiment.name!r} has no sampler {sampler!r}{near_miss(sampler, labels)}; "
            f"it has {', '.join(labels)}"
        )
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    studies = {study.study_id: study for study in experiment.studies if sampler in (None, study.sampler.label)}
    order = "DESC" if experiment.study_file.direction == "maximize" else "ASC"
    with experiment.storage.engine.connect() as connection:
        rows = connection.execute(sa.text(BEST.format(order)), {"study_ids": list(studies), "top": top}).all()
    if not rows:
        of = "" if sampler is None else f" of {sampler}"
        raise ExperimentError(f"no trial{of} of {experiment.name!r} has completed yet: there is no best configuration")
    found = []
    for study_id, number, value, text in rows:
        attrs = {key: json.loads(item) for key, item in json.loads(text).items()}
        study = studies[study_id]
        config, seed = attrs[attributes.CONFIG], attrs[attributes.SEED]
        found.append(BestTrial(study.name, study.sampler.label, number, value, config, seed, attrs))
    return found


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
        "versions": {name: _version(name) for name in ("torch", "optuna", "hpo")},
        "git_commit": git_commit(),
        "trained_on": best.attrs.get(attributes.TRAINED_ON),
        "data": _fingerprint(file, best.config, settings),
    }
    return {
        "name": f"{experiment.name}-{'best' if rank == 1 else f'top-{rank}'}",
        "trainer": file.trainer,
        "metric": file.metric,
        "direction": file.direction,
        "value": file.value,
        "fixed": without_nulls(best.config),
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


def _fingerprint(file: StudyFile, config: dict[str, Any], settings: Settings) -> dict[str, Any] | None:
    entry = TRAINERS[file.trainer]
    if entry.check is None:
        return None
    try:
        return entry.check(configure(file, config), settings.data_dir, False)
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
            cwd=Path(hpo.__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@dataclasses.dataclass(frozen=True)
class TrainingPlace:
    """Where and how a file's configuration is trained; all of it decides the last digits of the result."""

    device: str
    threads: int
    slots: int


def training_place(study_file: StudyFile) -> TrainingPlace:
    """The device of this machine, and threads and slots as in the file's provenance, if any.

    Another number of threads adds up in another order. What was trained among others is trained in a pack of its own:
    it multiplies as there, and the number of neighbours does not matter.
    """
    from hpo.machine import default_device, usable_cores

    trained_on = study_file.provenance.get("trained_on", {})
    threads = min(trained_on.get("threads", usable_cores()), usable_cores())
    return TrainingPlace(default_device(), threads, min(trained_on.get("slots", 1), 2))


def train_epochs(
    study_file: StudyFile, config: Any, seed: int, settings: Settings, *, test: str = "last"
) -> Iterator[dict[str, float]]:
    """Trains one configuration in this process and yields the metrics of each epoch; the trainer's error is raised.

    Raises TrainerError where it yields what is no number, or not the file's metric.
    """
    place, entry = training_place(study_file), TRAINERS[study_file.trainer]
    slots = min(place.slots, entry.max_slots or place.slots)
    trainer = entry.build(
        BuildOptions(place.device, slots, place.threads, (config,), settings.data_dir, settings.download)
    )
    run = Run(place.device, seed, data_dir=settings.data_dir, download=settings.download, test=test)  # type: ignore[arg-type]
    trainer.start(0, config, run)
    while events := trainer.advance():
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if not isinstance(event, EpochEnd):
                return
            try:
                yield checked_metrics(event.metrics, study_file.metric)
            except (KeyError, TypeError) as error:
                raise TrainerError(f"{study_file.name!r} cannot be trained: {error.args[0]}") from None
            if event.finished:
                return


def value_of(study_file: StudyFile, history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of the epoch that gives a trial its value: the last one, or the best by the study's metric."""
    if study_file.value == "last":
        return history[-1]
    sign = 1 if study_file.direction == "maximize" else -1
    return max(history, key=lambda metrics: sign * metrics[study_file.metric])


def train_config(
    study_file: StudyFile,
    config: dict[str, Any],
    seeds: Sequence[int],
    settings: Settings,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """Trains a configuration once for each seed; returns the final metrics of each, test metrics among them."""
    model = configure(study_file, config)
    results = []
    for index, seed in enumerate(seeds):
        history: list[dict[str, float]] = []
        test = "last" if study_file.value == "last" else "each"
        for metrics in train_epochs(study_file, model, seed, settings, test=test):
            history.append(metrics)
            if report is not None:
                report(index, len(history), metrics)
        if not history:
            raise TrainerError(f"the trainer {study_file.trainer!r} ended without yielding metrics of an epoch")
        results.append({"seed": seed, **value_of(study_file, history)})
    return results


def train_file(
    study_file: StudyFile,
    settings: Settings,
    num_seeds: int | None = None,
    report: Report | None = None,
    train: Callable[..., list[dict[str, float]]] = train_config,
) -> dict[str, Any]:
    """Trains a file's configuration: with its own seed, or with ``num_seeds`` fresh ones. What ``hpo train`` prints.

    ``train`` does the training: :func:`train_config`, or one that looks closer.

    Raises:
        UsageError: for a file that still searches, or fewer than one seed.
    """
    if study_file.space.parameters:
        raise UsageError(
            f"{study_file.name!r} searches {', '.join(study_file.space.parameters)}: launch it, export the best "
            "configuration and train that, or give the parameters in [fixed]"
        )
    if num_seeds is not None and num_seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {num_seeds}")
    own_seed = study_file.provenance.get("seed", study_file.seed)
    seeds = [own_seed] if num_seeds is None else list(range(num_seeds))
    config = configure(study_file, {})
    runs = train(study_file, {}, seeds, settings, report)
    names = [name for name in runs[0] if name not in ("seed", "seconds")]
    result: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "runs": runs,
        "mean": {name: statistics.fmean(run[name] for run in runs) for name in names},
        "std": {name: statistics.stdev(run[name] for run in runs) if len(runs) > 1 else None for name in names},
        "n": len(runs),
        "metric": study_file.metric,
        "expected": study_file.provenance.get("value"),
        "obtained": None,
        "reproduced": None,
    }
    if num_seeds is None:
        result["obtained"] = runs[0][study_file.metric]
        if result["expected"] is not None:
            result["reproduced"] = result["obtained"] == result["expected"]
            result["trained_on"] = study_file.provenance.get("trained_on")
    return result
