"""What the figures say in their titles, and where their axes are marked."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hpo.trainers.classifier.diagnostics import figures
from hpo.trainers.classifier.diagnostics.noise import NoiseScale
from hpo.trainers.classifier.diagnostics.pictures import SIZE, _scale, picture
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
    assert picture(drawn).size == SIZE
    noise = NoiseScale(value, error, 0.25, 5.0, 16, 256, 0.5625, 0.27, 8)
    assert title(figures.noise_figure(noise)) == f"Gradient noise scale: {shown} examples"


def test_what_did_not_converge_says_so() -> None:
    found = Eigenvalue(2.0, 0.5, 50, False, [2.0])
    assert title(figures.sharpness_figure(found)) == "Largest eigenvalue of the Hessian: 2.00 ± 0.50, not converged"


@pytest.mark.parametrize(
    ("spec", "values", "ticks"),
    [
        ({}, [0.0, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ({"type": "log"}, [0.001, 1000.0], ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]),
        ({"type": "log"}, [0.4, 30.0], ["0.5", "1", "2", "5", "10", "20"]),
        # A range with no power of ten in it, nor 1, 2 or 5 times one.
        ({"type": "log"}, [2.27, 2.51], ["2.3", "2.35", "2.4", "2.45", "2.5"]),
        # Epochs: none between two.
        ({"dtick": 1}, [1, 2], ["1", "2"]),
        ({"dtick": 1}, [1, 12], ["2", "4", "6", "8", "10", "12"]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(
    spec: dict[str, object], values: list[float], ticks: list[str]
) -> None:
    sheet = Figure()
    axes = sheet.subplots()
    axes.plot(values, values)
    _scale(axes, "y", spec, [{"y": values}])
    low, high = sorted(axes.get_ylim())
    FigureCanvasAgg(sheet).draw()  # type: ignore[no-untyped-call]
    labelled = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    shown = [label.get_text() for at, label in labelled if low <= at <= high]
    assert [text for text in shown if text in ticks] == ticks
    assert len(shown) <= 10


def test_few_epochs_have_no_ticks_between_them() -> None:
    metrics = {"train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5, "lr": 0.1, "grad_norm": 1.0}
    for count, dtick in ((1, 1), (12, 1), (13, None)):
        drawn = figures.history_figures([metrics] * count, 0.9, "sgd")
        assert {figure["layout"]["xaxis"].get("dtick") for figure in drawn.values()} == {dtick}
