"""Which epochs are reports, which one gives the value, and what is refused."""

import math

import pytest

from hpo.trainers.metrics import checked_metrics, missing_objective, reported_value, value_epoch

NAN = math.nan


def reports(values: list[float | None], train_loss: float | None = 1.0, **options: bool) -> list[float | None]:
    """What each epoch of a trial with these values of val_loss reports."""
    history: list[dict[str, float]] = []
    found = []
    for value in values:
        epoch = {} if value is None else {"val_loss": value}
        history.append(epoch if train_loss is None else {**epoch, "train_loss": train_loss})
        found.append(reported_value(history, "val_loss", **options))
    return found


def test_an_epoch_without_the_metric_is_no_report():
    assert checked_metrics({"val_loss": None, "train_loss": 1}, "val_loss") == {"train_loss": 1.0}
    assert reports([None, 0.5, None]) == [None, 0.5, None]


def test_nan_beside_a_finite_training_loss_is_an_epoch_without_validation():
    assert reports([NAN, NAN, 0.5, NAN, NAN, 0.4, NAN]) == [None, None, 0.5, None, None, 0.4, None]


def test_more_nan_in_a_row_than_between_two_validations_is_divergence():
    found = reports([NAN, 0.5, NAN, NAN])
    assert found[:3] == [None, 0.5, None]
    assert found[3] is not None
    assert math.isnan(found[3])


@pytest.mark.parametrize("train_loss", [None, NAN, math.inf])
def test_nan_without_a_finite_loss_beside_it_is_divergence(train_loss: float | None):
    (first,) = reports([NAN], train_loss)
    assert first is not None
    assert math.isnan(first)


def test_nan_after_a_validation_each_epoch_is_divergence():
    assert math.isnan(reports([0.5, 0.4, NAN])[-1] or 0.0)


def test_a_trainer_may_say_that_nan_is_no_report():
    assert reports([0.5, NAN, NAN], None, nan_is_no_report=True) == [0.5, None, None]


def test_infinite_is_a_report():
    assert reports([math.inf]) == [math.inf]


def test_which_epoch_gives_the_value():
    history = [{"loss": 2.0}, {"loss": 1.0}, {"loss": NAN}, {"lr": 0.1}]
    assert value_epoch(history, "loss", "last", "minimize") == 1
    assert value_epoch(history, "loss", "best", "maximize") == 0
    assert value_epoch([{"loss": NAN}], "loss", "best", "minimize") == 0
    assert value_epoch([{"lr": 1.0}], "loss", "last", "minimize") is None
    assert value_epoch([], "loss", "last", "minimize") is None
    assert "only lr" in str(missing_objective([{"lr": 1.0}], "loss"))


@pytest.mark.parametrize("value", ["0.5", b"1", [1], object()])
def test_what_is_no_number_is_refused(value: object):
    with pytest.raises(TypeError, match="as 'loss'; a number was expected"):
        checked_metrics({"loss": value}, "loss")
