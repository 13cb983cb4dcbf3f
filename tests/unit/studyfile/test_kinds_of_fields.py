"""Kinds of fields that configurations have: each can be searched or fixed, and an export means the same."""

import dataclasses
import datetime
import decimal
import enum
import json
import random
import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Optional

import pydantic
import pydantic.alias_generators
import pytest
import tomli_w

from hpo.errors import StudyFileError
from hpo.studyfile.configuration import first_difference
from hpo.studyfile.load import parse_study_file, study_file_from_json
from hpo.trainers.generator import model_of
from hpo.trainers.protocol import Config
from hpo.trainers.registry import TRAINERS, TrainerEntry
from tests.unit.study_files import toy

HEAD = 'name = "n"\ntrainer = "kinds"\nmetric = "loss"\nsamplers = ["random"]\nbudget = { trials = 3 }\n'


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
    lr: float = 0.1
    layers: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    name: str | None = None


@pydantic.dataclasses.dataclass
class Checked:
    x: Annotated[int, pydantic.Field(ge=1)] = 3
    y: float = pydantic.Field(0.5, le=1)


class Inner(Config):
    a: int = 1
    sub: Optional["Inner"] = None


class Camel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=pydantic.alias_generators.to_camel, extra="forbid")
    learning_rate: float = 0.1


class Both(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True, extra="forbid")
    learning_rate: float = pydantic.Field(0.1, alias="lr")


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    k: int = 1


class Kinds(Config):
    inner: Inner = Inner()
    optional: Inner | None = None
    checked: Checked = pydantic.Field(default_factory=Checked)
    level: Level = Level.LOW
    color: Color = Color.RED
    exact: decimal.Decimal = decimal.Decimal("0.1")
    day: datetime.date = datetime.date(2020, 1, 1)
    delta: datetime.timedelta = datetime.timedelta(seconds=3)
    size: pydantic.ByteSize = pydantic.ByteSize(10)
    pair: tuple[int, int] = (1, 2)
    numbers: frozenset[int] = frozenset({1})
    auto: float | Literal["auto"] = "auto"
    many: tuple[Inner, ...] = ()
    renamed: int = pydantic.Field(3, validation_alias=pydantic.AliasChoices("renamed", "oldName"))
    value: float = pydantic.Field(0.5, validation_alias=pydantic.AliasPath("deep", "value"))
    loose: Loose = Loose()
    flag: bool | None = None
    limit: pydantic.PositiveFloat = 1.0
    max_norm: float = pydantic.Field(float("inf"), allow_inf_nan=True)


class InfiniteDefault(Config):
    x: float = 0.5
    level: float = float("inf")


@pytest.fixture(autouse=True)
def _trainer_goes() -> Iterator[None]:
    yield
    TRAINERS.pop("kinds", None)


def read(config: type, text: str) -> Any:
    model = config if issubclass(config, pydantic.BaseModel) else model_of(config)
    TRAINERS["kinds"] = TrainerEntry("kinds", model, TRAINERS[toy.__name__].build, "kinds of fields")
    return parse_study_file(tomllib.loads(HEAD + text), "file")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (Kinds, '[space]\n"inner.a" = [1, 2]\n"inner.sub.sub.a" = [3]'),
        (Kinds, '[space]\n"optional.a" = [5]'),
        (Kinds, '[space]\n"checked.x" = { low = 1, high = 4 }\nchecked.y = { low = 0, high = 1 }'),
        (Kinds, '[space]\nlevel = [1, 2]\ncolor = ["red", "blue"]\nexact = { low = 0.1, high = 0.5 }'),
        (Kinds, '[fixed]\nday = 2021-02-03\ndelta = 5\nsize = "1kb"\npair = [3, 4]\nnumbers = [1, 2]'),
        (Kinds, '[space]\nauto = ["auto", 0.5]'),
        (Kinds, "[space]\nauto = { low = 0.1, high = 0.5 }"),
        (Kinds, "[fixed]\nmany = [{ a = 3 }, { a = 4 }]"),
        (Kinds, '[space]\noldName = [3, 4]\n"deep.value" = { low = 0, high = 1 }'),
        (Kinds, "[fixed]\nrenamed = 4\ndeep = { value = 0.25 }"),
        (Kinds, '[fixed]\nloose = { k = 3, other = 4 }\n[space]\n"loose.another" = [1, 2]'),
        (Kinds, '[space]\nflag = ["none", true]\nlimit = { low = 1, high = 2 }'),
        (Kinds, "[fixed]\ninner = {}\noptional = {}"),
        (Kinds, "[fixed]\nmax_norm = -inf"),
        (Camel, "[space]\nlearningRate = { low = 0.1, high = 1 }"),
        (Both, "[space]\nlr = { low = 0.1, high = 1 }"),
        (Both, "[space]\nlearning_rate = { low = 0.1, high = 1 }"),
        (Frozen, '[space]\nlr = { low = 0.1, high = 1 }\nname = ["none"]\n[fixed]\nlayers = [3]'),
    ],
)
def test_each_kind_is_read_stored_and_exported(config: type, text: str) -> None:
    file = read(config, text)
    assert study_file_from_json(json.loads(json.dumps(file.to_json(), allow_nan=False))) == file
    given = file.merge(file.space.draw(random.Random(1)))
    trained = file.configure(json.loads(json.dumps(given, allow_nan=False)))
    exported = tomli_w.dumps({"fixed": file.as_fixed(given)})
    again = parse_study_file({"name": "e", "trainer": "kinds", "metric": "loss", **tomllib.loads(exported)}, "e")
    assert first_difference(trained, again.configure(again.merge({}))) is None


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        (Kinds, "[fixed]\nmany = [{ aa = 3 }]", "fixed.many[0].aa: unknown name (did you mean 'a'?)"),
        (
            InfiniteDefault,
            "[space]\nx = [0.5]",
            "fixed: the default of level: inf is refused; expected a finite number; a field that may be infinite is",
        ),
        (Kinds, "[space]\nlevel = [1, 3]", "space.level.choices[1]: 3 is refused; expected 1 or 2"),
        (Kinds, "[fixed.checked]\nz = 3", "fixed.checked.z: unknown name 'z'; known: x, y"),
        (
            Kinds,
            "[space]\ninner = [1, 2]",
            "space.inner.choices[0]: 1 is refused; expected a valid dictionary",
        ),
        (
            Camel,
            "[space]\nlearning_rate = [0.1]",
            "space.learning_rate: unknown parameter of the trainer's",
        ),
        (
            Both,
            "[space]\nlr = [0.1]\nlearning_rate = [0.2]",
            "space.learning_rate: is given twice; it is the same",
        ),
    ],
)
def test_mistakes_of_each_kind(config: type, text: str, expected: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        read(config, text)
    assert caught.value.mistakes[0].startswith(expected)
