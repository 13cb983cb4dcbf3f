"""The key ``seeds_per_trial``: what is refused, what it makes of budgets, and how a launch overrides it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

import hpo
from hpo.errors import StudyFileError, UsageError
from hpo.study_source import read_study
from hpo.studyfile.load import parse_study_file
from hpo.studyfile.notes import notes_on
from hpo.trainers.generator import trainer
from hpo.trainers.objective import register_objective


class Epochs(hpo.Config):
    x: float = 0.5
    epochs: int = 9


@trainer("nine-epochs", metrics={"loss": "minimize"})
def nine_epochs(config: Epochs, run: hpo.Run) -> Iterator[dict[str, float]]:
    """Nothing is trained here."""
    yield {"loss": config.x}


def table(**keys: Any) -> dict[str, Any]:
    base = {"name": "s", "trainer": "nine-epochs", "metric": "loss", "budget": {"trials": 20}, "pruner": "none"}
    return {**base, "space": {"x": {"low": 0.0, "high": 1.0}}, **keys}


@pytest.mark.parametrize("value", [0, -1, 101, 2.5, "3", True])
def test_what_is_no_number_of_seeds_is_refused(value: Any) -> None:
    with pytest.raises(StudyFileError, match="seeds_per_trial"):
        parse_study_file(table(seeds_per_trial=value), "s.toml")


def test_one_seed_is_what_a_file_without_the_key_has() -> None:
    assert parse_study_file(table(seeds_per_trial=1), "").to_json() == parse_study_file(table(), "").to_json()
    assert "seeds_per_trial" not in parse_study_file(table(), "").to_json()
    assert parse_study_file(table(seeds_per_trial=3), "").num_seeds == 3


def test_a_budget_in_epochs_must_hold_all_seeds_of_a_trial() -> None:
    parse_study_file(table(seeds_per_trial=3, budget={"epochs": 27}), "")
    with pytest.raises(StudyFileError, match=r"26 is less than one trial may take, 3 seeds of 9; expected at least 27"):
        parse_study_file(table(seeds_per_trial=3, budget={"epochs": 26}), "")


def test_the_note_on_a_pruner_counts_the_epochs_of_all_seeds() -> None:
    (note,) = notes_on(parse_study_file(table(seeds_per_trial=3, pruner="asha"), ""))
    assert "of 540 epochs" in note
    assert "{ epochs = 540 }" in note


def test_an_objective_is_refused_in_one_line() -> None:
    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1)

    entry = register_objective("test:seeds", objective)
    with pytest.raises(StudyFileError) as refused:
        parse_study_file(
            {
                "name": "o",
                "trainer": entry.name,
                "budget": {"trials": 2},
                "direction": "minimize",
                "seeds_per_trial": 3,
            },
            "o.toml",
        )
    assert str(refused.value).count("\n") == 1
    assert "seeds_per_trial: an objective suggests its parameters while it runs" in str(refused.value)


def test_a_launch_overrides_the_file(tmp_path: Path, home: Path) -> None:
    settings = hpo.Settings()
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\ntrainer = "nine-epochs"\nmetric = "loss"\npruner = "none"\nbudget.epochs = 20\n'
        "space.x = { low = 0.0, high = 1.0 }\n"
    )
    assert read_study(path, settings, {})[0].num_seeds == 1
    assert read_study(path, settings, {"seeds_per_trial": 2})[0].num_seeds == 2
    with pytest.raises(StudyFileError, match="expected at least 27"):
        read_study(path, settings, {"seeds_per_trial": 3})
    with pytest.raises(UsageError, match="--seeds-per-trial must be a whole number from 1 to 100, not 0"):
        read_study(path, settings, {"seeds_per_trial": 0})
    parsed = read_study(path, settings, {})[0]
    assert read_study(parsed, settings, {"seeds_per_trial": 2})[0].num_seeds == 2
    assert read_study(table(), settings, {"seeds_per_trial": 2})[0].num_seeds == 2
