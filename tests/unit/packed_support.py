"""What the tests of packed training share: the same trials alone and packed, and how far their curves are apart."""

import math
from collections.abc import Callable, Mapping, Sequence

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.classifier.training import ClassifierTrainer
from hpo.trainers.protocol import BuildOptions, EpochEnd, Failed, Metrics, Run, State, Trainer

Curves = dict[int, list[Metrics]]

BASE = {
    "dataset": "digits",
    "train_size": 320,
    "val_size": 100,
    "width_1": 24,
    "width_2": 16,
    "batch_size": 32,
    "epochs": 2,
    "lr": 0.03,
}
"""20 steps of an MLP; ten epochs of it are 100."""


def configuration(**values: object) -> ClassifierConfig:
    return ClassifierConfig.model_validate({**BASE, **values})


def run_all(
    trainer: Trainer,
    configs: Sequence[ClassifierConfig],
    *,
    order: Sequence[int] | None = None,
    stop: Callable[[EpochEnd], bool] = lambda event: False,
    runs: Mapping[int, Run] | None = None,
) -> tuple[Curves, dict[int, State]]:
    """Trains the configurations, each with its index as its seed, refilling slots in ``order``.

    Returns each one's metrics and its last snapshot. ``stop`` says at an epoch's end whether to prune.
    """
    todo = list(range(len(configs)) if order is None else order)
    curves: Curves = {index: [] for index in todo}
    snapshots: dict[int, State] = {}
    held: set[int] = set()
    while todo or held:
        while todo and len(held) < trainer.capacity:
            index = todo.pop(0)
            trainer.start(index, configs[index], (runs or {}).get(index) or Run(seed=index))
            held.add(index)
        for event in trainer.advance():
            if isinstance(event, Failed):
                raise event.error
            assert isinstance(event, EpochEnd), event
            assert isinstance(event.key, int)
            assert event.snapshot is not None
            curves[event.key].append({name: v for name, v in event.metrics.items() if not name.startswith("seconds")})
            snapshots[event.key] = event.snapshot()
            if event.finished or stop(event):
                trainer.stop(event.key)
                held.discard(event.key)
    return curves, snapshots


def alone(configs: Sequence[ClassifierConfig]) -> tuple[Curves, dict[int, State]]:
    return run_all(ClassifierTrainer(BuildOptions(threads=1)), configs)


def packed(
    configs: Sequence[ClassifierConfig], slots: int, *, static: bool | None = None, **options: object
) -> tuple[Curves, dict[int, State]]:
    trainer = PackedTrainer(BuildOptions(threads=1), slots, static=static)
    return run_all(trainer, configs, **options)  # type: ignore[arg-type]


def assert_same(ours: Sequence[Metrics], theirs: Sequence[Metrics], rel: float) -> None:
    """Every metric of every epoch agrees to ``rel``."""
    assert len(ours) == len(theirs)
    for epoch, (mine, reference) in enumerate(zip(ours, theirs, strict=True), start=1):
        assert set(mine) == set(reference)
        for name, value in reference.items():
            close = math.isclose(mine[name], value, rel_tol=rel, abs_tol=1e-12) or mine[name] is value
            assert close, f"{name} of epoch {epoch}: {mine[name]!r} packed, {value!r} alone"
