"""A trainer's configuration in words, the same in every process."""

import subprocess
import sys
from pathlib import Path

from hpo.experiment.config_schema import fingerprint, shown_changes
from hpo.trainers.loading import load_trainers
from hpo.trainers.registry import TRAINERS
from tests.unit.study_files import ToyConfig


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
