"""What the tests of the trainers share: the real data's folder, and runs of the classifier through its protocol."""

import os
from pathlib import Path

import pytest

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.entry import CLASSIFIER_METRICS
from hpo.trainers.classifier.entry import _build_classifier as build
from hpo.trainers.protocol import BuildOptions, EpochEnd, Failed, Metrics, Run, State

DATA_DIR = Path(os.environ.get("HPO_TEST_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))

needs_mnist = pytest.mark.skipif(not (DATA_DIR / "MNIST/raw").is_dir(), reason="HPO_TEST_DATA holds no MNIST/raw")
needs_cifar10 = pytest.mark.skipif(
    not (DATA_DIR / "cifar-10-batches-py").is_dir(), reason="HPO_TEST_DATA holds no cifar-10-batches-py"
)


def train(
    config: ClassifierConfig, run: Run, *, stop_after: int | None = None
) -> tuple[list[dict[str, float]], State | None]:
    """The metrics of each epoch without ``seconds``, and the last snapshot; a failed trial raises its error."""
    trainer = build(BuildOptions(threads=1))
    trainer.start("trial", config, run)
    history: list[dict[str, float]] = []
    state: State | None = None
    while True:
        (event,) = trainer.advance()
        if isinstance(event, Failed):
            raise event.error
        assert isinstance(event, EpochEnd)
        assert event.snapshot is not None
        state = event.snapshot()
        history.append(_without_seconds(event.metrics))
        if event.finished or event.epoch == stop_after:
            trainer.stop("trial")
            assert trainer.advance() == []
            return history, state


def _without_seconds(metrics: Metrics) -> dict[str, float]:
    assert set(metrics) <= set(CLASSIFIER_METRICS)
    assert metrics["seconds"] > 0
    return {name: value for name, value in metrics.items() if not name.startswith("seconds")}
