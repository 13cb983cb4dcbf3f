"""What a trial was given is what each attempt trains, what an export holds, and what ``hpo train`` trains again."""

import dataclasses
import enum
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

import hpo
from hpo.launchers.progress import PlainProgress
from hpo.trainers.registry import TRAINERS

TRAINED: list[tuple[int, str]] = []
"""Start epoch and configuration of each attempt, as text."""


class Kind(enum.Enum):
    ADAM = "adam"
    SGD = "sgd"


@dataclasses.dataclass
class Schedule:
    warmup: int = 3
    kind: Kind = Kind.SGD


class Odd(hpo.Config):
    """Aliases, computed fields, validators that convert and scale, a serializer, a secret, an enum, a path, None."""

    lr: float = pydantic.Field(0.1, gt=0)
    batch_size: int = 512
    percent: float = pydantic.Field(10.0, ge=0, le=100)
    lambda_: float = pydantic.Field(1.0, alias="lambda")
    token: pydantic.SecretStr = pydantic.SecretStr("none of your business")
    kind: Kind = Kind.SGD
    folder: Path = Path("/tmp")
    patience: int | None = 4
    clip: float = pydantic.Field(1.0, allow_inf_nan=True)
    schedule: Schedule = pydantic.Field(default_factory=Schedule)
    dropout: float = 0.0

    @pydantic.model_validator(mode="before")
    @classmethod
    def _scale(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "lr": values["lr"] * values.get("batch_size", 512) / 256} if "lr" in values else values

    @pydantic.field_validator("percent")
    @classmethod
    def _share(cls, value: float) -> float:
        return value / 100

    @pydantic.field_serializer("dropout")
    def _round(self, value: float) -> str:
        return f"{value:.1f}"

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def width(self) -> int:
        return 2 * self.batch_size


STUDY = """
name = "odd"
trainer = "odd"
metric = "loss"
samplers = ["SAMPLER"]
budget = { trials = 4 }

[fixed]
token = "secret"
clip = inf
folder = "/data"

[space]
lr = { low = 0.01, high = 1.0, log = true, grid = [0.05] }
percent = { low = 1.0, high = 50.0, grid = [7.0] }
lambda = { low = 0.1, high = 2.0, grid = [0.3] }
kind = { choices = ["adam", "sgd"], grid = true }
patience = { choices = ["none", 2], grid = true }
"schedule.warmup" = { low = 1, high = 9, grid = [5] }
"schedule.kind" = ["adam", "sgd"]
dropout = { low = 0.0, high = 0.9, step = 0.1, grid = [0.3] }
"""


@pytest.fixture
def odd(home: Path) -> Iterator[hpo.Settings]:
    """Settings; the trainer ``odd`` fails once at the second epoch of each trial, after a checkpoint."""
    TRAINED.clear()
    failed: set[str] = set()

    @hpo.trainer("odd", metrics={"loss": "minimize"}, max_epochs=3)
    def odd(config: Odd, run: hpo.Run) -> Iterator[dict[str, float]]:
        """Its loss depends on every field."""
        text = f"{config!r} {config.token.get_secret_value()}"
        TRAINED.append((run.start_epoch, text))
        for epoch in range(run.start_epoch, 3):
            if epoch == 2 and text not in failed:
                failed.add(text)
                raise OSError("once")
            run.save({"epoch": epoch})
            clip = 1.0 if math.isinf(config.clip) else 0.0
            yield {
                "loss": config.lr + config.percent + config.lambda_ + config.dropout + clip + (config.patience or 0),
            }

    yield hpo.Settings(home=home)
    for name in ("odd", "plain"):
        TRAINERS.pop(name, None)


@pytest.mark.parametrize("sampler", ["random", "grid", "tpe"])
def test_each_attempt_the_export_and_its_training_have_the_same_configuration(
    odd: hpo.Settings, tmp_path: Path, sampler: str
) -> None:
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace("SAMPLER", sampler))
    loaded = hpo.launch(file, launcher="inline", settings=odd, progress=PlainProgress(io.StringIO()))
    (study,) = loaded.studies.values()
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(complete) == 4
    assert len({text for _, text in TRAINED}) == 4
    for text in {text for _, text in TRAINED}:
        assert [start for start, other in TRAINED if other == text] == [0, 2]
    for trial in complete:
        assert trial.params["dropout"] in {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
        assert trial.params["patience"] in {None, 2}
        assert trial.user_attrs["hpo:given"]["token"] == "secret"
    for form in ("toml", "json"):
        ((path, best),) = loaded.export(tmp_path / f"best.{form}")
        before = len(TRAINED)
        trained = hpo.train(path, settings=odd)
        assert (trained["obtained"], trained["reproduced"]) == (best.value, True)
        assert TRAINED[before][1] in {text for _, text in TRAINED[:before]}


def test_a_trial_of_the_version_before_is_exported_from_its_dump(odd: hpo.Settings, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        'name = "old"\ntrainer = "plain"\nmetric = "loss"\nsamplers = ["random"]\nbudget = { trials = 2 }\n'
        "[space]\nlr = [0.1, 0.2]\n"
    )

    class Plain(hpo.Config):
        lr: float = 0.5
        depth: int = 3

    @hpo.trainer("plain", metrics={"loss": "minimize"})
    def plain(config: Plain, run: hpo.Run) -> Iterator[dict[str, float]]:
        """Plain."""
        yield {"loss": config.lr * config.depth}

    loaded = hpo.launch(file, launcher="inline", settings=odd, progress=PlainProgress(io.StringIO()))
    with loaded._experiment.storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM trial_user_attributes WHERE key = 'hpo:given'")
    ((path, best),) = loaded.export(tmp_path / "best.toml")
    assert best.given == best.config
    assert hpo.train(path, settings=odd)["obtained"] == best.value
