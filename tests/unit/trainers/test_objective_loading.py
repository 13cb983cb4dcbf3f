"""Objectives out of scripts and modules, as people write them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo.trainers import objective_loading, user_modules
from hpo.trainers.errors import TrainerError
from hpo.trainers.loading import load_trainers
from hpo.trainers.objective_loading import OWN_STUDIES, SPECS, is_objective_name, load_objective
from hpo.trainers.registry import TRAINERS


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets what a test imports."""
    tables: list[Any] = [TRAINERS, SPECS, OWN_STUDIES, objective_loading._reached, user_modules._loaded]
    before = [dict(table) for table in tables]
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


OBJECTIVE = """
import optuna

def objective(trial):
    '''A parabola.'''
    return (trial.suggest_float("x", -10, 10) - 2) ** 2
"""


def test_names_of_objectives() -> None:
    assert is_objective_name("my_module:objective")
    assert is_objective_name("folder/my script.py:objective")
    assert is_objective_name("pkg.module:Model.objective")
    for name in ("classifier", "my_module:", ":objective", "a:b c", "my_module.py"):
        assert not is_objective_name(name)


def test_a_script_by_its_path_and_its_functions(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "tuned.py").write_text(OBJECTIVE)
    entry = load_objective("sub/tuned.py:objective")
    assert (entry.name, entry.description) == ("tuned:objective", "A parabola.")
    assert SPECS[entry.name] == f"{tmp_path}/sub/tuned.py:objective"
    assert load_objective("sub/tuned.py:objective").name in TRAINERS
    load_trainers(SPECS[entry.name])
    with pytest.raises(TrainerError, match=r"there is no 'objektive' in sub/tuned.py \(did you mean 'objective'\?\)"):
        load_objective("sub/tuned.py:objektive")
    with pytest.raises(TrainerError, match="there is no trainer module at"):
        load_objective("absent.py:objective")


def test_a_module_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "found_here.py").write_text(OBJECTIVE)
    assert load_objective("found_here:objective").name == "found_here:objective"
    with pytest.raises(TrainerError, match=r"there is none in .*, nor is one installed; did you mean 'found_here'"):
        load_objective("found_nowhere:objective")
    with pytest.raises(TrainerError, match=r"the trainer module 'no_package.module' cannot be imported"):
        load_objective("no_package.module:objective")


def test_the_import_ends_where_a_script_optimizes(tmp_path: Path) -> None:
    (tmp_path / "publish.py").write_text(
        OBJECTIVE
        + "study = optuna.create_study(direction='maximize')\n"
        + "study.set_metric_names(['accuracy'])\n"
        + "try:\n    study.optimize(objective, n_trials=50)\nexcept Exception:\n    pass\n"
        + "print(study.best_params)\n\ndef late(trial):\n    return 1.0\n"
    )
    optimize = optuna.Study.optimize
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        load_objective("publish.py:objective")
    own = OWN_STUDIES["publish:objective"]
    assert (own.direction, own.metric, own.n_trials) == ("maximize", "accuracy", 50)
    assert optuna.Study.optimize is optimize
    with pytest.raises(TrainerError, match=r"there is no 'late' in publish.py; its import ended at its call of study"):
        load_objective("publish.py:late")


def test_a_script_with_several_directions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "several.py").write_text(
        OBJECTIVE + "optuna.create_study(directions=['minimize', 'maximize']).optimize(objective, n_trials=1)\n"
    )
    with pytest.raises(TrainerError, match="several:objective: its study has 2 directions"):
        load_objective("several.py:objective")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("input('how many? ')", "asks.py cannot be imported: EOFError"),
        ("import sys\nsys.exit(3)", "asks.py cannot be imported: SystemExit: 3"),
        ("1 / 0", "asks.py cannot be imported: ZeroDivisionError"),
        ("def objective(:", "asks.py cannot be imported: SyntaxError"),
    ],
)
def test_a_script_that_cannot_be_imported(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "asks.py").write_text(source)
    with pytest.raises(TrainerError, match=message):
        load_objective("asks.py:objective")
    assert "asks" not in sys.modules


def test_a_script_that_is_called_like_a_module_of_python(tmp_path: Path) -> None:
    import random

    (tmp_path / "random.py").write_text(OBJECTIVE)
    assert load_objective("random.py:objective").name == "random:objective"
    assert sys.modules["random"] is random


def test_a_decorated_generator_is_the_trainer_that_it_is(tmp_path: Path) -> None:
    (tmp_path / "gen.py").write_text(
        "import hpo\nclass C(hpo.Config):\n    x: float = 0.0\n"
        "@hpo.trainer('gen-of-mine')\ndef train(config: C, run: hpo.Run):\n    yield {'loss': config.x}\n"
    )
    entry = load_objective("gen.py:train")
    assert (entry.name, entry.suggests) == ("gen-of-mine", False)
    assert SPECS["gen-of-mine"] == f"{tmp_path}/gen.py:train"
