"""Another version of a trainer's configuration is recognized, the same one never is."""

import enum
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
from pydantic import Field

from hpo.experiment.config_schema import changes, fingerprint, shown_changes
from hpo.trainers.loading import load_trainers
from hpo.trainers.protocol import Config
from hpo.trainers.registry import TRAINERS
from tests.unit.study_files import ToyConfig


class Kind(enum.Enum):
    A = "a"
    B = "b"


def made(**fields: Any) -> dict[str, str]:
    return fingerprint(pydantic.create_model("Made", __base__=Config, **fields))


def test_in_words() -> None:
    assert fingerprint(ToyConfig) == {
        "lr": "float, gt=0, le=10, required",
        "beta": "float, ge=0, lt=1, default 0.9",
        "width": "int, ge=1, le=4096, default 64",
        "depth": "int, ge=1, le=8, default 2",
        "batch_size": "16 | 32 | 64, default 32",
        "scheduler": "'constant' | 'step' | 'cosine', default 'constant'",
        "step_size": "int, ge=1, default 3",
        "gamma": "float, gt=0, le=1, default 0.1",
        "nesterov": "bool, default False",
        "milestones": "tuple[int, ...], default ()",
        "epochs": "int, ge=1, default 10",
        "optimizer": "{kind: 'sgd', default 'sgd'; momentum: float, ge=0, lt=1, default 0.9} | "
        "{kind: 'adam', default 'adam'; eps: float, gt=0, default 1e-08}, default Sgd(kind='sgd', momentum=0.9)",
    }


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ({"x": (float, 1.0)}, {"y": (float, 1.0)}, "x: float, default 1.0 -> not there"),
        ({"x": (float, 1.0)}, {"x": (float, 2.0)}, "x: float, default 1.0 -> float, default 2.0"),
        ({"x": (float, 1.0)}, {"x": (int, 1)}, "x: float, default 1.0 -> int, default 1"),
        ({"x": (float, 1.0)}, {"x": (float | None, 1.0)}, "x: float, default 1.0 -> float | None, default 1.0"),
        ({"x": (int, ...)}, {"x": (int, 0)}, "x: int, required -> int, default 0"),
        ({"x": (int, 0)}, {"x": (int, 0), "z": (int, 0)}, "z: not there -> int, default 0"),
        (
            {"x": (int, Field(0, ge=0))},
            {"x": (int, Field(0, gt=-1))},
            "x: int, ge=0, default 0 -> int, gt=-1, default 0",
        ),
        ({"x": (Literal["a", "b"], "a")}, {"x": (Literal["a"], "a")}, "x: 'a' | 'b', default 'a' -> 'a', default 'a'"),
        (
            {"x": (str, Field("a", pattern="a"))},
            {"x": (str, "a")},
            "x: str, pattern='a', default 'a' -> str, default 'a'",
        ),
        (
            {"x": (list[Annotated[int, Field(ge=1)]], [1])},
            {"x": (list[Annotated[int, Field(ge=2)]], [1])},
            "x: list[int, ge=1], default [1] -> list[int, ge=2], default [1]",
        ),
        (
            {"x": (Kind, Kind.A)},
            {"x": (enum.Enum("Kind", {"A": "a", "B": "c"}), Kind.A)},
            "x: Kind('a', 'b'), default <Kind.A: 'a'> -> Kind('a', 'c'), default <Kind.A: 'a'>",
        ),
        (
            {"x": (str, Field("a", max_length=3))},
            {"x": (str, Field("a", max_length=4))},
            "x: str, max_length=3, default 'a' -> str, max_length=4, default 'a'",
        ),
    ],
)
def test_each_change_is_a_line(before: dict[str, Any], after: dict[str, Any], line: str) -> None:
    assert line in changes(made(**before), made(**after))
    assert changes(made(**before), made(**before)) == []


def test_what_does_not_count() -> None:
    before = made(x=(float, Field(1.0, description="one thing", title="X", examples=[1])))
    assert changes(before, made(x=(float, Field(1.0, description="the same in other words")))) == []


def test_nothing_that_changes_from_run_to_run() -> None:
    """Neither addresses nor the order of sets, nor how the module was found."""
    code = """
import enum, json, sys
from typing import Annotated, Literal
import pydantic
import hpo
from hpo.experiment.config_schema import fingerprint

class Plain: pass
class Kind(enum.Enum): A = 1
class Inner(hpo.Config):
    inner: "Inner | None" = None
class Outer(hpo.Config):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    a: Plain = Plain()
    b: Annotated[int, pydantic.AfterValidator(lambda x: x)] = 1
    c: frozenset[str] = frozenset("abcdefgh")
    d: list[int] = pydantic.Field(default_factory=lambda: [1])
    e: Inner = Inner()
    f: Kind = Kind.A
print(json.dumps(fingerprint(Outer)))
"""
    repository = Path(__file__).parents[3]
    said = {
        subprocess.run(
            [sys.executable, "-c", f"__name__ = {name!r}\n{code}"],
            capture_output=True,
            text=True,
            check=True,
            cwd=repository,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for name, seed in (("one", "1"), ("another.name", "2"))
    }
    assert len(said) == 1
    assert "0x" not in said.pop()


def test_the_classifier_has_one() -> None:
    load_trainers(())
    described = fingerprint(TRAINERS["classifier"].config)
    assert described["lr"] == "float, gt=0, le=100, default 0.05"
    assert not any("0x" in text for text in described.values())


def test_of_many_changes_the_first_are_shown() -> None:
    lines = [f"x{index}: int -> not there" for index in range(8)]
    assert shown_changes(lines[:6]) == "; ".join(lines[:6])
    assert shown_changes(lines) == "; ".join(lines[:6]) + "; and 2 more"
