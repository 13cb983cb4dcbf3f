"""From a configuration of the classifier to its diagnosis: trains it once more, watched, or takes what was trained."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.data import Split, load_split
from hpo.trainers.classifier.datasets import DATASETS, Part, read_split
from hpo.trainers.classifier.diagnostics.activations import PatternObserver
from hpo.trainers.classifier.diagnostics.history import History
from hpo.trainers.classifier.diagnostics.run import INTERVAL, DiagnosisData, diagnose
from hpo.trainers.classifier.precision import choose_precision
from hpo.trainers.classifier.training import ClassifierTrainer, trained_network
from hpo.trainers.protocol import BuildOptions, EpochEnd, Failed, Metrics, Run, State

PROBE = 64
"""Images whose activation patterns are watched from step to step."""

WATCHED = ("mlp", "relu_line")
"""Networks that are watched at every step: a pass of the probe costs them little beside a step."""


def pattern_observer(config: ClassifierConfig, run: Run) -> PatternObserver | None:
    """What to put into ``run.observe`` before the training; None for networks that are not in ``WATCHED``.

    Its probe is the first validation images, or evenly spaced numbers on the interval of report 5.
    """
    if config.network not in WATCHED:
        return None
    dtype = choose_precision(config, run.device).weights
    if DATASETS[config.dataset].shape == (1,):
        return PatternObserver(torch.linspace(*INTERVAL, 201, dtype=dtype, device=run.device)[:, None])
    return PatternObserver(_split(config, "val", run, dtype).x[:PROBE])


def diagnosis_data(config: ClassifierConfig, run: Run) -> DiagnosisData:
    """The sets that a network of the configuration is diagnosed on; mistakes come from the test set if run.test allows.

    Raises:
        TrainerError: where the data is absent, altered or does not fit.
    """
    part: Part = "val" if run.test == "never" else "test"
    dtype = choose_precision(config, run.device).weights
    entry = DATASETS[config.dataset]
    held_out = _split(config, part, run, dtype)
    pixels = None
    if len(entry.shape) == 3:
        images, _ = read_split(config.dataset, part, run.data_dir, run.download)
        pixels = torch.from_numpy(images[: len(held_out)].copy())
    return DiagnosisData(
        train=_split(config, "train", run, dtype),
        held_out=held_out,
        part=part,
        pixels=pixels,
        scale=entry.scale or 1.0,
        class_names=DATASETS[config.dataset].class_names or None,
    )


def _split(config: ClassifierConfig, part: Part, run: Run, dtype: torch.dtype) -> Split:
    return load_split(config, part, device=run.device, dtype=dtype, data_dir=run.data_dir, download=run.download)


def diagnose_classifier(
    config: ClassifierConfig, state: State, history: History, folder: Path, run: Run
) -> dict[str, Any]:
    """Diagnoses what the classifier trained: as :func:`diagnostics.run.diagnose`.

    Args:
        state: the snapshot of the last epoch (``EpochEnd.snapshot()``).
        run: the one that it was trained with; if its ``observe`` is a PatternObserver, its distances are taken in.
    """
    model = trained_network(config, state, run.device)
    observer = run.observe if isinstance(run.observe, PatternObserver) else None
    data = diagnosis_data(config, run)
    return diagnose(model, config, data, history, folder, seed=run.seed, observer=observer)


def train_and_diagnose(
    config: ClassifierConfig,
    run: Run,
    folder: Path,
    *,
    threads: int = 1,
    report: Callable[[int, Metrics], None] | None = None,
    earlier: Sequence[dict[str, float]] = (),
    each: Callable[[EpochEnd, dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Trains the configuration, watched, and diagnoses it; the same weights as without being watched.

    ``evaluate_train`` is turned on, so that the gap of each epoch is known. ``report`` is called with each epoch (from
    1) and its metrics. A run that starts after epoch 0 is watched from there on; ``earlier`` has the metrics of the
    epochs before. ``each`` is called with each epoch's event and metrics.

    Raises:
        TrainerError: where the data does not fit.
    """
    config = config.model_copy(update={"evaluate_train": True})
    run.observe = pattern_observer(config, run)
    trainer = ClassifierTrainer(BuildOptions(run.device, 1, threads, (config,), run.data_dir, run.download))
    trainer.start(0, config, run)
    history: list[dict[str, float]] = list(earlier)
    while True:
        (event,) = trainer.advance()
        if isinstance(event, Failed):
            raise event.error
        assert isinstance(event, EpochEnd)
        assert event.snapshot is not None
        history.append({name: float(value) for name, value in event.metrics.items() if value is not None})
        if report is not None:
            report(event.epoch, event.metrics)
        if each is not None:
            each(event, history[-1])
        if event.finished:
            return diagnose_classifier(config, event.snapshot(), history, folder, run)
