"""Trainers and study files for tests; importing this registers the trainers ``toy`` and ``bare``."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pydantic
import pytest
from pydantic import Field, model_validator

from hpo.errors import StudyFileError
from hpo.studyfile.load import parse_study_file
from hpo.studyfile.model import StudyFile
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run


class Sgd(Config):
    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)


class Adam(Config):
    kind: Literal["adam"] = "adam"
    eps: float = Field(1e-8, gt=0)


class ToyConfig(Config):
    lr: float = Field(gt=0, le=10)
    beta: float = Field(0.9, ge=0, lt=1)
    width: int = Field(64, ge=1, le=4096)
    depth: int = Field(2, ge=1, le=8)
    batch_size: Literal[16, 32, 64] = 32
    scheduler: Literal["constant", "step", "cosine"] = "constant"
    step_size: int = Field(3, ge=1)
    gamma: float = Field(0.1, gt=0, le=1)
    nesterov: bool = False
    milestones: tuple[int, ...] = ()
    epochs: int = Field(10, ge=1)
    optimizer: Annotated[Sgd | Adam, Field(discriminator="kind")] = Sgd()

    @model_validator(mode="after")
    def _milestones_in_time(self) -> "ToyConfig":
        late = [milestone for milestone in self.milestones if milestone >= self.epochs]
        if late:
            raise ValueError(f"milestones {late} are not before the last epoch, {self.epochs}")
        if self.scheduler == "step" and self.step_size >= self.epochs:
            raise ValueError(f"step_size {self.step_size} is not before the last epoch, {self.epochs}")
        return self


@trainer("toy", metrics={"val_loss": "minimize", "val_accuracy": "maximize", "test_loss": "minimize", "speed": None})
def toy(config: ToyConfig, run: Run) -> Iterator[dict[str, float]]:
    """A surface to be searched."""
    for epoch in range(config.epochs):
        yield {"val_loss": (config.lr - 0.1) ** 2 + 1 / (epoch + 1), "val_accuracy": 0.5, "speed": 1.0}


class BareConfig(Config):
    x: float = 0.0


@trainer("bare")
def bare(config: BareConfig, run: Run) -> Iterator[dict[str, float]]:
    """No epochs in its configuration, and nothing said of its metrics."""
    yield {"loss": config.x**2}


def study(**changes: Any) -> dict[str, Any]:
    """A correct study file with some keys changed; None leaves a key out."""
    data: dict[str, Any] = {
        "name": "a study",
        "trainer": "toy",
        "metric": "val_loss",
        "samplers": ["random"],
        "budget": {"trials": 12},
        "fixed": {"epochs": 8},
        "space": {
            "lr": {"low": 1e-3, "high": 1.0, "log": True},
            "scheduler": ["constant", "step"],
            "step_size": {"low": 1, "high": 4, "when": {"scheduler": "step"}},
        },
        **changes,
    }
    return {key: value for key, value in data.items() if value is not None}


def read(**changes: Any) -> StudyFile:
    return parse_study_file(study(**changes), "study.toml")


def mistakes(**changes: Any) -> list[str]:
    """The mistakes of a study file that has some."""
    with pytest.raises(StudyFileError) as caught:
        read(**changes)
    return caught.value.mistakes


def configure(study_file: StudyFile, values: dict[str, Any]) -> Any:
    """The configuration of sampled values."""
    return study_file.configure(study_file.merge(values))


def fields(config: pydantic.BaseModel) -> dict[str, Any]:
    return config.model_dump()
