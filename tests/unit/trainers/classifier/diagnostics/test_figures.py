"""What the figures say in their titles, and where their axes are marked."""

import pytest

from hpo.trainers.classifier.diagnostics import figures
from hpo.trainers.classifier.diagnostics.noise import NoiseScale
from hpo.trainers.classifier.diagnostics.pictures import _Axis, picture
from hpo.trainers.classifier.diagnostics.sharpness import Eigenvalue


def title(figure: figures.Figure) -> str:
    return str(figure["layout"]["title"]["text"])


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (1381.4, 12.7, "1,381 ± 13"),
        (6.1234, 0.1391, "6.12 ± 0.14"),
        (0.571356, 0.00547, "0.5714 ± 0.0055"),
        (-3.2, 0.5, "-3.20 ± 0.50"),
        (2.0, 0.0, "2"),
    ],
)
def test_a_value_has_the_digits_that_its_error_allows(value: float, error: float, shown: str) -> None:
    drawn = figures.sharpness_figure(Eigenvalue(value, error, 3, True, [1.0, 1.5, value]))
    assert title(drawn) == f"Largest eigenvalue of the Hessian: {shown}"
    assert drawn["data"][0]["x"] == [1.0, 2.0, 3.0]
    assert drawn["data"][0]["y"][:2] == [1.0, 1.5]
    assert picture(drawn).size == (760, 440)
    noise = NoiseScale(value, error, 0.25, 5.0, 16, 256, 0.5625, 0.27, 8)
    assert title(figures.noise_figure(noise)) == f"Gradient noise scale: {shown} examples"


def test_what_did_not_converge_says_so() -> None:
    found = Eigenvalue(2.0, 0.5, 50, False, [2.0])
    assert title(figures.sharpness_figure(found)) == "Largest eigenvalue of the Hessian: 2.00 ± 0.50, not converged"


@pytest.mark.parametrize(
    ("spec", "values", "ticks"),
    [
        ({}, [0.0, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ({}, [-2.0, 2.0], ["-2", "-1", "0", "1", "2"]),
        ({"type": "log"}, [0.001, 1000.0], ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]),
        ({"type": "log"}, [0.4, 30.0], ["0.5", "1", "2", "5", "10", "20"]),
        # A range with no power of ten in it, nor 1, 2 or 5 times one.
        ({"type": "log"}, [2.27, 2.51], ["2.3", "2.35", "2.4", "2.45", "2.5"]),
        # Epochs: none between two.
        ({"dtick": 1}, [1, 2], ["1", "2"]),
        ({"dtick": 1}, [1], ["1"]),
        ({"dtick": 1}, [1, 12], ["2", "4", "6", "8", "10", "12"]),
        ({}, ["a", "b", "a"], ["a", "b"]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(
    spec: dict[str, object], values: list[object], ticks: list[str]
) -> None:
    axis = _Axis(spec, values, (0.0, 100.0), 0.0)
    assert [text for _, text in axis.ticks(6)] == ticks
    assert all(-1e-6 <= axis.place(value) <= 100 + 1e-6 for value, _ in axis.ticks(6))


def test_few_epochs_have_no_ticks_between_them() -> None:
    metrics = {"train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "lr": 0.1, "grad_norm": 1.0}
    for count, dtick in ((1, 1), (12, 1), (13, None)):
        drawn = figures.history_figures([metrics] * count, 0.9, "sgd")
        assert {figure["layout"]["xaxis"].get("dtick") for figure in drawn.values()} == {dtick}
