"""Optuna objectives of many kinds, unchanged, each run to its end by one worker in this process."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import hpo
from hpo import api
from hpo.errors import ExperimentError, HPOError, UsageError
from hpo.launchers.progress import PlainProgress
from hpo.launchers.registry import make_options
from hpo.trainers.registry import TRAINERS

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    before = dict(TRAINERS)
    yield
    TRAINERS.clear()
    TRAINERS.update(before)


Launch = Callable[..., "list[optuna.Study]"]


@pytest.fixture
def launch(address: str, home: Path) -> Launch:
    """Launches an objective with the study file's keys; returns the studies, in the order of their samplers."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def run(objective: Any, trials: int = 6, sampler: str = "random", **keys: Any) -> list[optuna.Study]:
        settings = hpo.Settings(storage=address, home=home)
        loaded = api.launch_with(
            objective,
            "inline",
            settings,
            make_options("inline"),
            PlainProgress(io.StringIO()),
            {"trials": trials, "sampler": sampler, **keys},
        )
        return list(loaded.studies.values())

    return run


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.trials]


def parabola(trial: optuna.Trial) -> float:
    """The first example of Optuna's documentation."""
    x = trial.suggest_float("x", -10, 10)
    return (x - 2) ** 2


def test_a_parabola(launch: Launch) -> None:
    (study,) = launch(parabola)
    assert states(study) == [COMPLETE] * 6
    for trial in study.trials:
        assert list(trial.params) == ["x"]
        assert trial.value == (trial.params["x"] - 2) ** 2
        assert trial.user_attrs["hpo:given"] == trial.params
        assert trial.intermediate_values == {}
    assert len({trial.params["x"] for trial in study.trials}) == 6


def test_plain_optuna_draws_the_same_with_the_same_seed(launch: Launch) -> None:
    """One worker, TPE: the trials that Optuna's own sampler draws of the same history."""
    first = [trial.params for trial in launch(parabola, 14, "tpe", name="a")[0].trials]
    assert first == [trial.params for trial in launch(parabola, 14, "tpe", name="b")[0].trials]
    assert first != [trial.params for trial in launch(parabola, 14, "tpe", name="c", seed=1)[0].trials]


def with_pruning(trial: optuna.Trial) -> float:
    """Reports as Optuna's pruning tutorial does; a bad one is bad from its first step on."""
    bad = trial.suggest_float("bad", 0, 1)
    for step in range(5):
        trial.report(bad + 1 / (step + 1), step)
        if trial.should_prune():
            raise optuna.TrialPruned()
    return bad


def test_pruning_with_reports(launch: Launch) -> None:
    (study,) = launch(with_pruning, 20, pruner="median")
    assert set(states(study)) == {COMPLETE, PRUNED}
    for trial in study.trials:
        if trial.state is PRUNED:
            assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]
            assert "median at epoch" in trial.user_attrs["reason"]
        else:
            assert list(trial.intermediate_values) == [0, 1, 2, 3, 4]
            assert trial.value == trial.params["bad"]


def never_asks(trial: optuna.Trial) -> float:
    trial.suggest_float("x", 0, 1)
    for step in (0, 10, 20):
        trial.report(float(trial.number), step)
    return 1.0


def test_an_objective_that_never_asks_is_not_pruned(launch: Launch) -> None:
    (study,) = launch(never_asks, 8, pruner="median")
    assert states(study) == [COMPLETE] * 8
    assert study.trials[3].intermediate_values == {0: 3.0, 10: 3.0, 20: 3.0}


def layers(trial: optuna.Trial) -> float:
    """A network whose depth and widths are suggested in a loop, below a condition."""
    classifier = trial.suggest_categorical("classifier", ["SVC", "MLP"])
    if classifier == "SVC":
        return trial.suggest_float("svc_c", 1e-10, 1e10, log=True) ** 0.01
    widths = [trial.suggest_int(f"units_{i}", 4, 128, log=True) for i in range(trial.suggest_int("layers", 1, 3))]
    return float(sum(widths))


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp", "qmc"])
def test_conditional_loops_with_every_sampler(launch: Launch, sampler: str) -> None:
    (study,) = launch(layers, 14, sampler)
    assert states(study) == [COMPLETE] * 14
    for trial in study.trials:
        names = {"classifier", "svc_c"} if trial.params["classifier"] == "SVC" else {"classifier", "layers"}
        names |= {f"units_{i}" for i in range(trial.params.get("layers", 0))}
        assert set(trial.params) == names


def test_samplers_are_compared_over_repeats(launch: Launch, address: str, home: Path) -> None:
    studies = launch(parabola, 12, "random,tpe,cmaes,gp,qmc", repeats=2, name="all")
    assert [len(study.trials) for study in studies] == [12] * 10
    assert len({tuple(t.params["x"] for t in study.trials) for study in studies}) == 10
    best = {study.study_name.split("/")[1]: study.best_value for study in studies}
    assert best["tpe"] < 40
    from hpo.compare.report import compare
    from hpo.database.storage import open_storage

    (comparison,) = compare(open_storage(address, home=home), ["all"]).experiments
    assert set(comparison.samplers) == {"random", "tpe", "cmaes", "gp", "qmc"}


def test_cmaes_moves_towards_the_optimum(launch: Launch) -> None:
    def sphere(trial: optuna.Trial) -> float:
        return sum((trial.suggest_float(name, -5, 5) - 1) ** 2 for name in ("a", "b"))

    (study,) = launch(sphere, 60, "cmaes")
    values = [trial.value or 0.0 for trial in study.trials]
    assert sum(values[-15:]) < sum(values[:15]) / 2


def scikit(trial: optuna.Trial) -> float:
    """scikit-learn with cross-validation, as in Optuna's examples."""
    import sklearn.datasets
    import sklearn.linear_model
    import sklearn.model_selection

    data, target = sklearn.datasets.load_iris(return_X_y=True)
    alpha = trial.suggest_float("alpha", 1e-5, 1e-1, log=True)
    model = sklearn.linear_model.SGDClassifier(alpha=alpha, random_state=0)
    return float(sklearn.model_selection.cross_val_score(model, data, target, n_jobs=1, cv=3).mean())


def test_scikit_learn(launch: Launch) -> None:
    pytest.importorskip("sklearn")
    (study,) = launch(scikit, 3, direction="maximize", metric="accuracy")
    assert states(study) == [COMPLETE] * 3
    assert study.best_value > 0.6
    assert study.best_trial.user_attrs["metrics"] == {"accuracy": study.best_value}


def boosting(trial: optuna.Trial) -> float:
    xgboost = pytest.importorskip("xgboost", reason="XGBoost is not installed")
    import numpy as np

    draws = np.random.default_rng(0)
    data = draws.normal(size=(200, 3))
    matrix = xgboost.DMatrix(data[:150], label=data[:150, 0] > 0)
    rest = xgboost.DMatrix(data[150:], label=data[150:, 0] > 0)
    result: dict[str, Any] = {}
    params = {"eta": trial.suggest_float("eta", 1e-3, 1.0, log=True), "objective": "binary:logistic"}
    xgboost.train(params, matrix, 10, evals=[(rest, "rest")], evals_result=result, verbose_eval=False)
    return float(result["rest"]["logloss"][-1])


def test_a_boosting_library(launch: Launch) -> None:
    pytest.importorskip("xgboost", reason="XGBoost is not installed")
    assert states(launch(boosting, 3)[0]) == [COMPLETE] * 3


def pytorch(trial: optuna.Trial) -> float:
    """A training loop of PyTorch; the layers are suggested, each epoch is reported."""
    import torch

    layers: list[torch.nn.Module] = []
    width = 2
    for i in range(trial.suggest_int("n_layers", 1, 2)):
        units = trial.suggest_int(f"n_units_l{i}", 4, 16)
        layers += [torch.nn.Linear(width, units), torch.nn.ReLU()]
        width = units
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))
    kind = trial.suggest_categorical("optimizer", ["Adam", "SGD"])
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=trial.suggest_float("lr", 1e-5, 1e-1, log=True))
    inputs = torch.randn(64, 2)
    loss = torch.tensor(0.0)
    for epoch in range(3):
        optimizer.zero_grad()
        loss = (model(inputs)[:, 0] - inputs.sum(1)).square().mean()
        loss.backward()
        optimizer.step()
        trial.report(loss.item(), epoch)
        if trial.should_prune():
            raise optuna.exceptions.TrialPruned()
    return loss.item()


def test_plain_pytorch_with_pruning(launch: Launch) -> None:
    pytest.importorskip("torch")
    (study,) = launch(pytorch, 8, "tpe", pruner="median")
    assert set(states(study)) <= {COMPLETE, PRUNED}
    assert len(study.trials) == 8


def test_artifacts(launch: Launch, tmp_path: Path) -> None:
    from optuna.artifacts import FileSystemArtifactStore, download_artifact, get_all_artifact_meta, upload_artifact

    (tmp_path / "store").mkdir()
    store = FileSystemArtifactStore(str(tmp_path / "store"))

    def objective(trial: optuna.Trial) -> float:
        (tmp_path / "model.bin").write_bytes(bytes([trial.number]))
        artifact = upload_artifact(artifact_store=store, file_path=str(tmp_path / "model.bin"), study_or_trial=trial)
        trial.set_user_attr("artifact_id", artifact)
        return trial.suggest_float("x", 0, 1)

    (study,) = launch(objective, 2)
    for trial in study.trials:
        (meta,) = get_all_artifact_meta(trial, storage=study._storage)
        assert (meta.artifact_id, meta.filename) == (trial.user_attrs["artifact_id"], "model.bin")
        download_artifact(
            artifact_store=store, artifact_id=meta.artifact_id, file_path=str(tmp_path / meta.artifact_id)
        )
        assert (tmp_path / meta.artifact_id).read_bytes() == bytes([trial.number])


def test_user_attributes_and_constraints(launch: Launch) -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.set_user_attr("accuracy", 1 - x)
        trial.set_user_attr("seed", "mine")
        assert trial.user_attrs == {"accuracy": 1 - x, "seed": "mine"}
        trial.set_constraint("small", x - 0.5)
        assert trial.constraints == {"small": x - 0.5}
        assert trial.study.study_name == "con/random/0"
        assert trial.datetime_start is not None
        with pytest.raises(RuntimeError, match="the budget ends the search"):
            trial.study.stop()
        return x

    (study,) = launch(objective, 4, name="con")
    for trial in study.trials:
        assert trial.user_attrs["accuracy"] == 1 - trial.params["x"]
        assert trial.user_attrs["user:seed"] == "mine"
        assert isinstance(trial.user_attrs["seed"], int)
        assert trial.constraints == {"small": trial.params["x"] - 0.5}


def test_a_value_that_is_not_finite_is_pruned(launch: Launch) -> None:
    def objective(trial: optuna.Trial) -> float:
        return float(trial.suggest_categorical("v", ["nan", "inf", "1"]))

    (study,) = launch(objective, 12)
    for trial in study.trials:
        assert trial.state is (COMPLETE if trial.params["v"] == "1" else PRUNED)
        if trial.state is PRUNED:
            assert trial.user_attrs["reason"] == f"value is {trial.params['v']}"


def some_fail(trial: optuna.Trial) -> Any:
    what = trial.suggest_categorical("what", ["none", "raises", "pruned", "fine", "fine", "also"][:4])
    if what == "raises":
        raise ValueError("no such luck")
    if what == "pruned":
        raise optuna.TrialPruned("not worth it")
    return None if what == "none" else 1.0


def test_none_and_what_it_raises(launch: Launch) -> None:
    (study,) = launch(some_fail, 16, max_retries=1)
    last = {trial.user_attrs["lineage"]: trial for trial in study.trials}
    assert len(last) == 16
    expected = {"none": FAIL, "raises": FAIL, "pruned": PRUNED, "fine": COMPLETE}
    for trial in last.values():
        assert trial.state is expected[trial.params["what"]]
    reasons = {trial.params["what"]: trial.user_attrs.get("reason") for trial in last.values()}
    assert reasons["none"] == "TypeError: the objective returned None; expected a number"
    assert reasons["raises"] == "ValueError: no such luck"
    for trial in study.trials:  # each attempt at a lineage has the same values
        assert trial.params == last[trial.user_attrs["lineage"]].params


def test_several_values_end_the_launch_in_one_line(launch: Launch) -> None:
    with pytest.raises(HPOError, match="the objective returns 2 values, and the study has one metric"):
        launch(lambda trial: (trial.suggest_float("x", 0, 1), 1.0))


def test_another_range_and_other_choices_under_one_name(launch: Launch) -> None:
    (study,) = launch(lambda trial: trial.suggest_float("x", trial.number, trial.number + 1), 5, "tpe", name="range")
    assert states(study) == [COMPLETE] * 5
    (study,) = launch(
        lambda trial: float(trial.suggest_categorical("c", [1, 2, trial.number])), 4, max_retries=0, name="choices"
    )
    assert states(study)[0] is COMPLETE
    assert set(states(study)[1:]) == {FAIL}
    assert "does not support dynamic value space" in study.trials[1].user_attrs["reason"]


def test_a_microsecond(launch: Launch) -> None:
    (study,) = launch(lambda trial: 1.0, 50)
    assert states(study) == [COMPLETE] * 50


class Model:
    """An objective that is a method, and one that is an object."""

    def __init__(self, target: float) -> None:
        self.target = target

    def objective(self, trial: optuna.Trial) -> float:
        return abs(trial.suggest_float("x", 0, 1) - self.target)

    __call__ = objective


def test_methods_and_objects(launch: Launch) -> None:
    assert states(launch(Model(0.5).objective, 3, name="method")[0]) == [COMPLETE] * 3
    assert states(launch(Model(0.5), 3, name="object")[0]) == [COMPLETE] * 3


def test_reports_as_people_make_them(launch: Launch) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.report(float("nan"), 0)
        trial.report(0.5, step=7)
        with pytest.warns(UserWarning, match="already reported"):
            trial.report(0.7, step=7)
        with pytest.raises(TypeError):
            trial.report("high", 8)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="non-negative"):
            trial.report(0.5, -1)
        return trial.suggest_float("x", 0, 1)

    (study,) = launch(objective, 2)
    for trial in study.trials:
        assert trial.state is COMPLETE
        assert trial.intermediate_values[7] == 0.5
        assert trial.intermediate_values[0] != trial.intermediate_values[0]


def test_tried_first_and_fixed(launch: Launch) -> None:
    (study,) = launch(
        lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 1, 9),
        4,
        "tpe",
        try_first=[{"x": 0.25}],
        fixed={"n": 3},
    )
    assert study.trials[0].params == {"x": 0.25, "n": 3}
    assert {trial.params["n"] for trial in study.trials} == {3}


def test_grid_and_a_space_are_refused_with_the_reason(launch: Launch) -> None:
    with pytest.raises(HPOError, match="an objective shows its parameters only while it runs"):
        launch(parabola, 4, "grid")
    with pytest.raises(HPOError, match=r"leave \[space\] out"):
        launch(parabola, 4, space={"x": {"low": 0, "high": 1}})
    with pytest.raises(HPOError, match="the number of an objective's reports is not known"):
        launch(parabola, None, budget={"epochs": 4})
    with pytest.raises(UsageError, match="give the number of trials"):
        launch(parabola, None)


def test_a_library_of_errors_ends_the_search_with_its_reason(launch: Launch) -> None:
    def objective(trial: optuna.Trial) -> float:
        raise RuntimeError(f"always {trial.suggest_float('x', 0, 1):.1f}")

    with pytest.raises(ExperimentError, match="always"):
        launch(objective, 30, max_retries=0)


KILLED = """
import os, signal, time, optuna
from pathlib import Path

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    marks = Path(os.environ["MARKS"])
    with marks.open("a") as file:
        file.write(f"{trial.number} {x} {kind}\\n")
    values = [line.split()[1] for line in marks.read_text().splitlines()]
    if len(set(values)) in (2, 5) and values.count(str(x)) == 1:  # a retry is not killed again
        time.sleep(0.3)  # the values are written meanwhile
        os.kill(os.getpid(), signal.SIGKILL)
    return x
"""


def test_a_killed_trial_is_tried_again_with_the_same_values(address: str, home: Path, tmp_path: Path) -> None:
    """Two workers, some kills: the budget is exact and each attempt at a lineage has the same values."""
    (tmp_path / "killed.py").write_text(KILLED)
    marks = tmp_path / "marks"
    environment = {**os.environ, "MARKS": str(marks), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    options = ["--trials", "10", "--sampler", "tpe", "--workers", "2", "--name", "killed", "--storage", address]
    done = subprocess.run(
        [sys.executable, "-m", "hpo", "launch", "killed.py:objective", *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="killed/tpe/0", storage=address, pruner=optuna.pruners.NopPruner())
    attempts: dict[int, list[optuna.trial.FrozenTrial]] = {}
    for trial in study.trials:
        attempts.setdefault(trial.user_attrs["lineage"], []).append(trial)
    assert sorted(attempts) == list(range(10))
    assert sum(trial.state is COMPLETE for trial in study.trials) == 10
    # A trial that was claimed ahead has not begun: nothing was suggested yet.
    began = [[trial for trial in trials if trial.params] for trials in attempts.values()]
    assert any(len(trials) > 1 for trials in began)
    for trials in began:
        assert [trial.params for trial in trials] == [trials[-1].params] * len(trials)
        assert set(trials[0].params) == {"x", "kind"}


def test_interrupts_reach_the_objective(address: str, home: Path, tmp_path: Path) -> None:
    """SIGTERM ends a worker at once, whatever its objective computes; the trial is given back."""
    (tmp_path / "slow.py").write_text(
        "import time\nfrom pathlib import Path\n\ndef objective(trial):\n    x = trial.suggest_float('x', 0, 1)\n"
        "    Path('started').write_text(str(x))\n    time.sleep(600)\n"
    )
    options = ["--trials", "2", "--launcher", "inline", "--name", "slow", "--storage", address]
    process = subprocess.Popen(
        [sys.executable, "-m", "hpo", "launch", "slow.py:objective", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    study = optuna.load_study(study_name="slow/auto/0", storage=address, pruner=optuna.pruners.NopPruner())
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]
    assert study.trials[0].params == study.trials[1].params
    assert str(study.trials[0].params["x"]) == (tmp_path / "started").read_text()
