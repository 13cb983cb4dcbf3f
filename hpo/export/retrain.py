"""The best configuration as a file, and a file trained again.

An exported file is a study file with an empty space plus ``[provenance]``, so ``hpo train`` and a next study read it
without a second format.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hpo.errors import UsageError
from hpo.settings import Settings
from hpo.studyfile.configuration import display_dump
from hpo.studyfile.model import StudyFile
from hpo.trainers.errors import TrainerError
from hpo.trainers.metrics import checked_metrics, missing_objective, value_epoch
from hpo.trainers.protocol import BuildOptions, Ended, EpochEnd, Failed, Run
from hpo.trainers.registry import TRAINERS

Report = Callable[[int, int, dict[str, float]], None]
"""Called after each epoch with the index of the seed, the epoch from 1 and its metrics."""


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
        BuildOptions(
            place.device,
            slots,
            place.threads,
            (config,),
            settings.data_dir,
            settings.download,
            study_file.program_options(),
        )
    )
    run = Run(
        device=place.device,
        seed=seed,
        data_dir=settings.data_dir,
        download=settings.download,
        test=test,  # type: ignore[arg-type]
        metric=study_file.metric,
    )
    trainer.start(0, config, run)
    while events := trainer.advance():
        for event in events:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Ended) and event.metrics is not None:
                yield checked_metrics(event.metrics, study_file.metric)
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
    chosen = value_epoch(history, study_file.metric, study_file.value, study_file.direction)
    if chosen is None:
        raise TrainerError(
            f"{study_file.name!r} cannot be trained: {missing_objective(history, study_file.metric).args[0]}"
        )
    return history[chosen]


def train_config(
    study_file: StudyFile,
    given: dict[str, Any],
    seeds: Sequence[int],
    settings: Settings,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """Trains given values once for each seed; returns the final metrics of each, test metrics among them."""
    model = study_file.configure(given)
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
    given = study_file.merge({})
    config = study_file.configure(given)
    runs = train(study_file, given, seeds, settings, report)
    names = [name for name in runs[0] if name not in ("seed", "seconds")]
    result: dict[str, Any] = {
        "config": display_dump(config, given),
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
