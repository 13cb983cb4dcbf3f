"""What was given is what is read again; names that are safe everywhere; the most epochs; stepped floats."""

import json
import random
from collections.abc import Iterator
from typing import Any

import optuna
import pydantic
import pytest

from hpo.database import attributes
from hpo.errors import ConfigurationRefusedError, StudyFileError
from hpo.search.space import Float, Space
from hpo.studyfile.configuration import first_difference
from hpo.studyfile.json_values import name_mistake
from hpo.studyfile.load import parse_study_file
from hpo.studyfile.model import StudyFile
from hpo.trainers.errors import Infeasible
from hpo.trainers.protocol import Config
from hpo.trainers.registry import TRAINERS, TrainerEntry
from tests.unit.study_files import mistakes, read


def file_for(config: type[pydantic.BaseModel] | None, max_epochs: str | int | None = None, **keys: Any) -> StudyFile:
    """A study file of a trainer with that configuration."""
    TRAINERS["given"] = TrainerEntry("given", config, TRAINERS["toy"].build, "a test", max_epochs=max_epochs)
    data = {"name": "g", "trainer": "given", "metric": "loss", "samplers": ["random"], "budget": {"trials": 2}}
    return parse_study_file({**data, **keys}, "file")


@pytest.fixture(autouse=True)
def _no_trainer_is_left() -> Iterator[None]:
    yield
    TRAINERS.pop("given", None)


class Scaled(Config):
    lr: float = pydantic.Field(0.1, gt=0)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _scale(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "lr": values["lr"] * 4} if "lr" in values else values


class Percent(Config):
    lr: float = pydantic.Field(10.0, ge=0, le=100)

    @pydantic.field_validator("lr")
    @classmethod
    def _share(cls, value: float) -> float:
        return value / 100


class Computed(Config):
    heads: int = 4

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def width(self) -> int:
        return 16 * self.heads


class Rounded(Config):
    lr: float = 0.1
    hidden: int = pydantic.Field(3, exclude=True)

    @pydantic.field_serializer("lr")
    def _round(self, value: float) -> str:
        return f"{value:.1f}"


class Raising(Config):
    lr: float = 0.1

    @pydantic.field_serializer("lr")
    def _raise(self, value: float) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (Scaled, {"lr": 0.25}),
        (Percent, {"lr": 12.0}),
        (Computed, {"heads": 8}),
        (Rounded, {"lr": 0.123, "hidden": 7}),
        (Raising, {"lr": 0.3}),
    ],
)
def test_a_retry_and_an_export_train_what_the_first_attempt_trained(config, values):
    file = file_for(config, space={name: [value] for name, value in values.items()})
    given = file.merge(values)
    first = file.configure(given)
    stored = {attributes.GIVEN: json.loads(json.dumps(given)), attributes.CONFIG: {"lr": "of no use"}}
    assert first_difference(first, file.configure(file.given_of(stored))) is None
    exported = file_for(config, budget=None, fixed=file.as_fixed(given))
    assert first_difference(first, exported.configure(exported.merge({}))) is None


def test_a_trial_of_an_older_version_is_given_its_dump():
    file = read(fixed={"epochs": 8})
    dump = file.configure(file.merge({"lr": 0.5, "scheduler": "constant"})).model_dump(mode="json")
    given = file.given_of({attributes.CONFIG: dump})
    assert file.configure(given).model_dump(mode="json") == dump
    assert file.given_of({}) is None


COUNT = iter(range(10**6))


class Fresh(Config):
    lr: float = 0.1
    run_id: int = pydantic.Field(default_factory=lambda: next(COUNT))


def test_a_configuration_that_does_not_come_back_equal_is_refused():
    with pytest.raises(StudyFileError) as caught:
        file_for(Fresh, space={"lr": [0.1, 0.2]})
    (line,) = caught.value.mistakes
    assert line.startswith("trainer: the configuration does not come back equal")
    assert ": run_id differs" in line
    assert file_for(Fresh, space={"lr": [0.1, 0.2]}, fixed={"run_id": 3})


class Choosy(Config):
    x: float = 0.0

    @pydantic.model_validator(mode="after")
    def _check(self) -> "Choosy":
        if self.x > 3:
            raise Infeasible("x does not fit the device")
        if self.x > 2:
            raise ZeroDivisionError("slip")
        if self.x > 1:
            raise ValueError("x is too large")
        return self


def test_a_refusal_has_the_reason_whatever_the_validator_raises():
    file = file_for(Choosy, space={"x": {"low": 0.0, "high": 5.0}})
    assert file.refusal({"x": 0.5}) is None
    assert file.refusal({"x": 1.5}) == "x is too large"
    assert file.refusal({"x": 2.5}) == "its validator raised ZeroDivisionError: slip"
    assert file.refusal({"x": 4.0}) == "x does not fit the device"
    with pytest.raises(ConfigurationRefusedError, match=r"refuses a configuration of 'g' \(x = 1.5\): x is too large"):
        file.configure(file.merge({"x": 1.5}))


@pytest.mark.parametrize(
    ("kind", "default", "most"),
    [(int, 5, 5), (float, 5.0, 5), (float, 5.5, None), (str, "5", None), (int, -1, None), (int | None, None, None)],
)
def test_the_most_epochs_are_known_only_from_whole_numbers(kind, default, most):
    config = pydantic.create_model("Epochs", __base__=Config, epochs=(kind, default), lr=(float, 0.1))
    assert file_for(config, space={"lr": [0.1, 0.2]}).max_epochs() == most


def test_a_trainer_without_a_model_accepts_any_name_and_any_value():
    file = file_for(
        None,
        space={"model": {"lr": {"low": 0.1, "high": 1.0}, "kind": ["a", "b"]}, "num-layers": [1, 2], "lambda": [0.5]},
        fixed={"data": {"path": "/x", "lr.max": 3}, "epochs": 4},
    )
    assert list(file.space.parameters) == ["model.lr", "model.kind", "num-layers", "lambda"]
    assert file.merge({"model.lr": 0.5, "lambda": 0.5}) == {
        "data.path": "/x",
        "data.lr.max": 3,
        "epochs": 4,
        "model.lr": 0.5,
        "lambda": 0.5,
    }
    assert file.configure(file.merge({"num-layers": 2}))["num-layers"] == 2
    for name in ("", " ", "a\nb", "x" * 201, "\x1b[31m"):
        with pytest.raises(StudyFileError):
            file_for(None, space={name: [1, 2]})


@pytest.mark.parametrize(
    "name", ["-lr", "--help", "--", "-", ".", "..", "", " x", "x ", "a/b", "a\nb", "a'b", 'a"b', "\x00"]
)
def test_names_that_are_refused(name):
    assert name_mistake(name) is not None
    assert any(line.startswith("name: ") for line in mistakes(name=name))


@pytest.mark.parametrize("name", ["x" * 201, "ж" * 101, "文" * 67, "\ud800"])
def test_names_that_are_too_long_for_a_file_are_refused(name):
    assert name_mistake(name) is not None


@pytest.mark.parametrize("name", ["lr", "Größe 1", "мнист", "文" * 60, "a.b", ".hidden", "x-1_2", "é" * 100])
def test_names_that_work(name):
    assert name_mistake(name) is None
    assert read(name=name).name == name


def test_a_label_that_begins_with_a_dash_is_refused_with_the_mend():
    (line,) = mistakes(samplers=[{"name": "tpe", "label": "-five"}])
    assert line == (
        "samplers[0].label: '-five' begins with a dash, as an option of a command does; "
        "expected another first letter, for instance 'five'"
    )


def test_stepped_floats_are_what_the_file_says_however_they_are_drawn():
    parameter = Float(0.0, 0.5, step=0.1)
    values = {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    space = Space({"dropout": parameter, "p": Float(0.0, 1.0, when={"dropout": (0.3,)})})
    drawn = [space.suggest(study.ask()) for _ in range(60)]
    assert {each["dropout"] for each in drawn} == values
    assert all(("p" in each) == (each["dropout"] == 0.3) for each in drawn)
    assert set(parameter.points(6)) == values == set(parameter.every_value())
    assert {parameter.draw(random.Random(seed)) for seed in range(99)} == values
    assert Float(0.1, 0.7, step=0.2).every_value() == (0.1, 0.3, 0.5, 0.7)


def test_first_configurations_and_conditions_are_on_the_steps():
    file = read(
        space={
            "lr": {"low": 0.1, "high": 0.7, "step": 0.2},
            "width": {"low": 1, "high": 3, "when": {"lr": 0.1 + 0.2}},
        },
        try_first=[{"lr": 0.1 + 0.2, "width": 2}],
    )
    assert file.try_first == [{"lr": 0.3, "width": 2}]
    assert file.space.parameters["width"].when == {"lr": (0.3,)}


def test_true_is_not_one():
    with pytest.raises(StudyFileError, match="1 is there twice"):
        file_for(None, space={"flag": [True, 1]})
    assert not read(space={"lr": [0.1], "nesterov": [True]}).space.parameters["nesterov"].contains(1)
