"""Which differences between two versions of a configuration matter for the trials that there are."""

import enum
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
from pydantic import Field

from hpo.experiment.config_changes import changes, parse
from hpo.experiment.config_schema import fingerprint
from hpo.trainers.loading import load_trainers
from hpo.trainers.protocol import Config
from hpo.trainers.registry import TRAINERS

NO_VALUES: dict[str, Any] = {"fixed": {}, "space": {}}


class Kind(enum.Enum):
    A = "a"
    B = "b"


More = enum.Enum("Kind", {"A": "a", "B": "b", "C": "c"})  # type: ignore[misc]
Other = enum.Enum("Kind", {"A": "a", "B": "c"})  # type: ignore[misc]


class Sgd(Config):
    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)


class SgdWithMore(Config):
    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False


SgdWithMore.__name__ = "Sgd"


class SgdOther(Config):
    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.5, ge=0, lt=1)


SgdOther.__name__ = "Sgd"


def made(**fields: Any) -> dict[str, str]:
    return fingerprint(pydantic.create_model("Made", __base__=Config, **fields))


def of(field: Any) -> dict[str, str]:
    return made(x=field)


HARMLESS = {
    "a new field with a default": ({}, of((int, 0))),
    "a default for what had to be given": (of((int, ...)), of((int, 3))),
    "a bound wider": (of((float, Field(0.1, gt=0, le=1))), of((float, Field(0.1, gt=0, le=10)))),
    "a bound gone": (of((float, Field(0.1, gt=0, le=1))), of((float, 0.1))),
    "a bound that includes its end": (of((float, Field(0.1, gt=0))), of((float, Field(0.1, ge=0)))),
    "the same bound in other words": (of((int, Field(0, ge=0))), of((int, Field(0, gt=-1)))),
    "one more choice": (of((Literal["a"], "a")), of((Literal["a", "b"], "a"))),
    "the choices in another order": (of((Literal["a", "b"], "a")), of((Literal["b", "a"], "a"))),
    "one more type": (of((float, 1.0)), of((float | None, 1.0))),
    "one more member": (of((Kind, Kind.A)), of((More, More.A))),
    "a longer text": (of((str, Field("a", max_length=3))), of((str, Field("a", max_length=4)))),
    "a pattern gone": (of((str, Field("a", pattern="a"))), of((str, "a"))),
    "a validator gone": (
        of((Annotated[int, pydantic.AfterValidator(abs)], 1)),
        of((int, 1)),
    ),
    "a wider bound of the items": (
        of((list[Annotated[int, Field(ge=1)]], [1])),
        of((list[Annotated[int, Field(ge=0)]], [1])),
    ),
    "a new field of a nested model": (of((Sgd, Sgd())), of((SgdWithMore, SgdWithMore()))),
    "one more nested model": (of((Sgd, Sgd())), of((Sgd | Kind, Sgd()))),
    "other words": (of((int, Field(1, description="one"))), of((int, Field(1, description="two", title="X")))),
}
MATTERS = {
    "a field that is gone": (of((float, 1.0)), {}),
    "a renamed field": (of((float, 1.0)), made(y=(float, 1.0))),
    "another default": (of((float, 1.0)), of((float, 2.0))),
    "a new field that must be given": ({}, of((int, ...))),
    "no default any more": (of((int, 0)), of((int, ...))),
    "another type": (of((float, 1.0)), of((int, 1))),
    "a type gone": (of((float | None, 1.0)), of((float, 1.0))),
    "another member": (of((Kind, Kind.A)), of((Other, Other.A))),
    "another default of a nested model": (of((Sgd, Sgd())), of((SgdOther, SgdOther()))),
    "a narrower bound of the items": (
        of((list[Annotated[int, Field(ge=1)]], [1])),
        of((list[Annotated[int, Field(ge=2)]], [3])),
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_no_other_version(name: str) -> None:
    before, after = HARMLESS[name]
    assert changes(before, after) == []


@pytest.mark.parametrize("name", MATTERS)
def test_another_version(name: str) -> None:
    before, after = MATTERS[name]
    assert [line.partition(":")[0] for line in changes(before, after, NO_VALUES)][:1] == ["x"]
    assert changes(before, before, NO_VALUES) == []


def test_the_lines_show_both() -> None:
    assert changes(made(x=(float, 1.0)), made(y=(float, ...))) == [
        "x: float, default 1.0 -> not there",
        "y: not there -> float, required",
    ]


NARROWER = {
    "le": (of((float, Field(0.1, le=1))), of((float, Field(0.1, le=0.5)))),
    "lt": (of((float, Field(0.1, le=0.5))), of((float, Field(0.1, lt=0.5)))),
    "a bound where there was none": (of((float, 0.1)), of((float, Field(0.1, le=0.4)))),
    "one choice less": (of((Literal[0.1, 0.5, 1], 0.1)), of((Literal[0.1, 1], 0.1))),
}


@pytest.mark.parametrize("name", NARROWER)
@pytest.mark.parametrize(
    ("study_file", "leaves"),
    [
        (NO_VALUES, False),
        ({"fixed": {"x": 0.5}, "space": {}}, True),
        ({"fixed": {"x": 0.1}, "space": {}}, False),
        ({"space": {"x": {"choices": [0.1, 0.5]}}}, True),
        ({"space": {"x": [0.1, 0.5]}}, True),
        ({"fixed": {}, "space": {}, "try_first": [{"x": 0.5}]}, True),
        ({"fixed": {"y": 0.5}, "space": {"z": {"low": 0.5, "high": 1}}}, False),
    ],
)
def test_a_narrower_bound_matters_if_a_value_leaves_it(name: str, study_file: dict[str, Any], leaves: bool) -> None:
    before, after = NARROWER[name]
    if name == "le":
        study_file = json.loads(json.dumps(study_file).replace("0.5", "0.6"))
    assert bool(changes(before, after, study_file)) == leaves
    # Without the study file there are no values to go by.
    assert changes(before, after)


def test_the_ends_of_a_range_are_its_values() -> None:
    before, after = of((int, Field(4, ge=1, le=512))), of((int, Field(4, ge=2, le=256)))
    for space, leaves in (
        ({"low": 2, "high": 256}, False),
        ({"low": 1, "high": 64}, True),
        ({"low": 2, "high": 512, "log": True}, True),
        ({"low": 2, "high": 64, "grid": [2, 512]}, True),
    ):
        assert bool(changes(before, after, {"space": {"x": space}})) == leaves


def test_a_narrower_bound_of_a_nested_model() -> None:
    class Narrower(Config):
        kind: Literal["sgd"] = "sgd"
        momentum: float = Field(0.9, ge=0.5, lt=1)

    Narrower.__name__ = "Sgd"
    before, after = of((Sgd, Sgd())), of((Narrower, Narrower()))
    assert changes(before, after, NO_VALUES) == []
    assert changes(before, after, {"fixed": {"x": {"kind": "sgd", "momentum": 0.4}}}) != []
    assert changes(before, after, {"space": {"x.momentum": {"low": 0.1, "high": 0.9}}}) != []
    assert changes(before, after, {"space": {"x.momentum": {"low": 0.5, "high": 0.9}}}) == []


@pytest.mark.parametrize(
    "text",
    [
        "float, gt=0, le=1, default 0.1",
        "'a, b' | 'c | d', default 'a, b'",
        "tuple[int, ge=1, ...], checked by _milestones, default ()",
        "{a: 'x; y', default 'x; y'; b: int, required} | None, default None",
        r"str, default 'it\'s, or not'",
    ],
)
def test_descriptions_are_taken_apart_whole(text: str) -> None:
    parts = parse(text)
    constraints = [f"{name}={value}" if value else name for name, value in parts.constraints.items()]
    ending = "required" if parts.default is None else f"default {parts.default}"
    assert ", ".join([" | ".join(parts.types), *constraints, ending]) == text


def test_the_classifier_is_the_version_of_experiments_made_by_0_1_0() -> None:
    """The text form as version 0.1.0 kept it."""
    before = json.loads((Path(__file__).parents[2] / "data" / "classifier-fields-0.1.0.json").read_text())
    load_trainers(())
    assert changes(before, fingerprint(TRAINERS["classifier"].config)) == []
