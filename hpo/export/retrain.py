"""An exported file trained again, with its own seed or with fresh ones: what ``hpo train`` and comparisons do.

An exported file is a study file with an empty space plus ``[provenance]``, so ``hpo train`` and a next study read it
without a second format.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hpo.errors import UsageError
from hpo.export.resumption import Resumption
from hpo.export.threads import MOST_THREADS, torch_threads
from hpo.export.train_result import TrainResult
from hpo.machine import default_device, trained_on, usable_cores
from hpo.search.seeds import seeds_of_trial
from hpo.settings import Settings
from hpo.studyfile.configuration import display_dump
from hpo.studyfile.model import StudyFile
from hpo.trainers.errors import TrainerError
from hpo.trainers.metrics import checked_metrics, missing_objective, value_epoch
from hpo.trainers.protocol import BuildOptions, Ended, EpochEnd, Failed, Run
from hpo.trainers.registry import TRAINERS
from hpo.trainers.several_seeds import build_with_seeds
from hpo.worker.run_context import trial_devices

Report = Callable[[int, int, dict[str, float]], None]
"""Called after each epoch with the seed, the epoch from 1 and its metrics."""


@dataclasses.dataclass(frozen=True)
class TrainingPlace:
    """Where and how a file's configuration is trained; all of it decides the last digits of the result."""

    device: str
    threads: int
    slots: int


def training_place(study_file: StudyFile) -> TrainingPlace:
    """The device of this machine, and threads and slots as in the file's provenance, if any.

    Floating-point sums depend on the number of threads, so it is restored, also on a machine with fewer cores. A trial
    that was found in a pack is trained in a pack, because packed kernels round differently from single ones.
    """
    recorded = study_file.provenance.get("trained_on", {})
    threads = recorded.get("threads", usable_cores())
    return TrainingPlace(default_device(), min(threads, MOST_THREADS), min(recorded.get("slots", 1), 2))


def place_differences(study_file: StudyFile, place: TrainingPlace) -> list[str]:
    """What is otherwise here than where the file's value was found, and may change the last digits."""
    recorded = study_file.provenance.get("trained_on", {})
    here = trained_on(place.device, place.threads, place.slots)
    lines = []
    for name, there in recorded.items():
        mine = here.get(name)
        if name == "slots" or mine is None or there is None:
            continue
        if name == "device":
            there, mine = str(there).partition(":")[0], str(mine).partition(":")[0]
        if there != mine:
            lines.append(f"{name}: {there} there, {mine} here")
    return lines


def train_epochs(
    study_file: StudyFile,
    config: Any,
    seed: int,
    settings: Settings,
    *,
    test: Literal["never", "last", "each"] = "last",
    folder: Path | None = None,
    observe: Callable[[Any], None] | None = None,
    resume: Path | None = None,
) -> Generator[dict[str, float]]:
    """Trains one configuration in this process and yields the metrics of each epoch; the trainer's error is raised.

    ``folder`` is the run's own, a temporary one if it is None. ``resume`` is a folder for the state of the training,
    from which it goes on if it was interrupted; the epochs before are yielded first.

    Raises:
        TrainerError: for what is no number.
    """
    place, entry = training_place(study_file), TRAINERS[study_file.trainer]
    slots = 1 if observe is not None else min(place.slots, entry.max_slots or place.slots)
    num_seeds = study_file.num_seeds
    trainer = build_with_seeds(
        entry,
        BuildOptions(
            device=place.device,
            slots=slots * num_seeds if slots > 1 else 1,
            threads=place.threads,
            configs=(config,),
            data_dir=settings.data_dir,
            download=settings.download,
            program=study_file.program_options(),
        ),
        num_seeds,
    )
    run = Run(
        device=place.device,
        devices=trial_devices(place.device, study_file.gpus_per_trial),
        seed=seed,
        seeds=seeds_of_trial(seed, num_seeds),
        data_dir=settings.data_dir,
        download=settings.download,
        test=test,
        experiment=study_file.name,
        trial_folder=folder,
        seed_libraries=study_file.seed_libraries,
        work_in_folder=study_file.work_in == "trial",
        metric=study_file.metric,
        second_metric=study_file.second_metric,
        observe=observe,
    )
    kept = None if resume is None else Resumption(resume, study_file, seed)
    if kept is not None:
        yield from kept.restore(run)
    trainer.start(0, config, run)
    try:
        while events := trainer.advance():
            for event in events:
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, EpochEnd) or (isinstance(event, Ended) and event.metrics is not None):
                    metrics = _checked(study_file, event.metrics or {})
                    if kept is not None and isinstance(event, EpochEnd):
                        kept.add(event, metrics)
                    yield metrics
                if not isinstance(event, EpochEnd) or event.finished:
                    if kept is not None:
                        kept.clear()
                    return
    finally:
        trainer.stop(0)


def _checked(study_file: StudyFile, metrics: Mapping[str, Any]) -> dict[str, float]:
    try:
        return checked_metrics(metrics, study_file.metric)
    except TypeError as error:
        raise TrainerError(f"{study_file.name!r} cannot be trained: {error.args[0]}") from None


def value_of(study_file: StudyFile, history: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of the epoch that gives a trial its value: the last one, or the best by the study's metric.

    Raises:
        TrainerError: if no epoch has the study's metric.
    """
    chosen = value_epoch(history, study_file.metric, study_file.value, study_file.direction)
    if chosen is None:
        raise TrainerError(
            f"{study_file.name!r} cannot be trained: {missing_objective(history, study_file.metric).args[0]}"
        )
    return history[chosen]


def train_config(
    study_file: StudyFile,
    given: Mapping[str, Any],
    seeds: Sequence[int],
    settings: Settings,
    report: Report | None = None,
    *,
    folder: Path | None = None,
    keep_errors: bool = False,
    observe: Callable[[Any], None] | None = None,
    resume: Path | None = None,
) -> list[dict[str, Any]]:
    """Trains given values once for each seed; returns ``seed`` and the final metrics of each, test metrics among them.

    ``folder`` gets a folder for each seed. If ``keep_errors``, a run that raises has ``error`` in place of metrics and
    the others go on; else its error is raised.
    """
    config = study_file.configure(given)
    results: list[dict[str, Any]] = []
    for seed in seeds:
        own_folder = None if folder is None else folder / f"seed-{seed}"
        try:
            metrics = _train_once(study_file, config, seed, settings, report, own_folder, observe, resume)
        except Exception as error:
            if not keep_errors:
                raise
            metrics = {"error": f"{type(error).__name__}: {error}"}
        results.append({"seed": seed, **metrics})
    return results


def _train_once(
    study_file: StudyFile,
    config: Any,
    seed: int,
    settings: Settings,
    report: Report | None,
    folder: Path | None,
    observe: Callable[[Any], None] | None,
    resume: Path | None,
) -> dict[str, Any]:
    history: list[dict[str, float]] = []
    test: Literal["last", "each"] = "last" if study_file.value == "last" else "each"
    epochs = train_epochs(study_file, config, seed, settings, test=test, folder=folder, observe=observe, resume=resume)
    with torch_threads(training_place(study_file).threads), contextlib.closing(epochs):
        for metrics in epochs:
            history.append(metrics)
            if report is not None:
                report(seed, len(history), metrics)
    if not history:
        raise TrainerError(f"the trainer {study_file.trainer!r} ended without yielding metrics of an epoch")
    return value_of(study_file, history)


def check_trainable(study_file: StudyFile) -> None:
    """Raises UsageError for a file that still searches."""
    if study_file.space.parameters:
        raise UsageError(
            f"{study_file.name!r} searches {', '.join(study_file.space.parameters)}: launch it, export the best "
            "configuration and train that, or give the parameters in [fixed]"
        )


def own_seed_of(study_file: StudyFile) -> int:
    """The seed that an exported file was found with, else the file's."""
    return int(study_file.provenance.get("seed", study_file.seed))


def train_own_seed(
    study_file: StudyFile,
    settings: Settings,
    report: Report | None = None,
    *,
    folder: Path | None = None,
    observe: Callable[[Any], None] | None = None,
    resume: Path | None = None,
) -> TrainResult:
    """Trains the file's configuration with its own seed, to see whether its value comes out again: the mean over the
    trial's seeds, if it has several.

    Raises UsageError for a file that still searches.
    """
    check_trainable(study_file)
    given, seeds = study_file.merge({}), [own_seed_of(study_file)]
    runs = train_config(study_file, given, seeds, settings, report, folder=folder, observe=observe, resume=resume)
    return own_seed_result(study_file, runs[0], folder)


def own_seed_result(study_file: StudyFile, run: Mapping[str, Any], folder: Path | None = None) -> TrainResult:
    """The result of one run with the file's own seed."""
    expected = study_file.provenance.get("value")
    differences = [] if expected is None else place_differences(study_file, training_place(study_file))
    recorded = study_file.provenance.get("trained_on")
    result = _result(study_file, [run], folder)
    return dataclasses.replace(result, expected=expected, differences=differences, trained_on=recorded, own_seed=True)


def train_fresh_seeds(
    study_file: StudyFile,
    settings: Settings,
    num_seeds: int,
    report: Report | None = None,
    *,
    folder: Path | None = None,
    resume: Path | None = None,
) -> TrainResult:
    """Trains the file's configuration with the seeds 0 to ``num_seeds`` - 1; a run that fails does not stop the others.

    Each run is one training, also if the file's trials have several seeds.

    Raises UsageError for a file that still searches, or fewer than one seed.
    """
    check_trainable(study_file)
    if num_seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {num_seeds}")
    study_file = study_file.model_copy(update={"seeds_per_trial": None})
    given = study_file.merge({})
    keep_errors = num_seeds > 1
    seeds = range(num_seeds)
    runs = train_config(
        study_file, given, seeds, settings, report, folder=folder, keep_errors=keep_errors, resume=resume
    )
    return _result(study_file, runs, folder)


def _result(study_file: StudyFile, runs: Sequence[Mapping[str, Any]], folder: Path | None) -> TrainResult:
    given = study_file.merge({})
    has_files = folder is not None and folder.is_dir() and any(folder.iterdir())
    config = display_dump(study_file.configure(given), given)
    return TrainResult(config, study_file.metric, runs, folder=str(folder) if has_files else None)
