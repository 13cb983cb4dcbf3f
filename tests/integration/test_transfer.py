"""Starting from earlier experiments: first configurations, imported trials, a space that grows."""

import io
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpo
from benchmarks.sleeping import Config as SleepingConfig
from hpo.compare.report import compare
from hpo.database import attributes
from hpo.database.storage import open_storage
from hpo.errors import ExperimentError, UsageError
from hpo.experiment.experiment import create_experiment
from hpo.experiment.imports import read_import
from hpo.launchers.progress import PlainProgress
from hpo.studyfile.load import parse_study_file

SPACE = {"batch_size": [32, 64], "lr": {"low": 1e-3, "high": 1.0, "log": True}, "beta": {"low": 0.8, "high": 0.99}}


def study(name: str, **keys: Any) -> dict[str, Any]:
    table = {"name": name, "trainer": "sleeping", "metric": "value", "samplers": ["random"], "budget": {"trials": 6}}
    return {**table, "fixed": {"epochs": 2, "epoch_seconds": 0.0}, "space": SPACE, **keys}


@pytest.fixture
def settings(home: Path, address: str) -> hpo.Settings:
    return hpo.Settings(home=home, storage=address, trainers="benchmarks.sleeping")


def launch(settings: hpo.Settings, table: dict[str, Any], **options: Any) -> tuple[hpo.LoadedExperiment, str]:
    """The experiment and what the launch printed."""
    out = io.StringIO()
    progress = PlainProgress(out)
    done = hpo.launch(table, launcher="inline", gpus="none", settings=settings, progress=progress, **options)
    return done, out.getvalue()


def trials(experiment: hpo.LoadedExperiment, sampler: str) -> list[Any]:
    return experiment.studies[f"{experiment.name}/{sampler}/0"].trials


def test_the_best_of_earlier_experiments_are_the_first_trials(settings: hpo.Settings, tmp_path: Path) -> None:
    narrow = {"lr": {"low": 0.05, "high": 0.06}, "beta": {"low": 0.9, "high": 0.91}, "batch_size": [64]}
    first, _ = launch(settings, study("first", space=narrow))
    best = first.best()
    other = {**SPACE, "batch_size": [16, 32], "beta": {"low": 0.8, "high": 0.95, "step": 0.05}}
    file = study("second", space=other, like=["first"], samplers=["random", "grid"], try_first=[{"lr": 0.5}])
    file["space"] = {**other, "lr": {**SPACE["lr"], "grid": [0.1, 0.2]}, "beta": {**other["beta"], "grid": [0.9]}}
    file["space"]["batch_size"] = {"choices": [16, 32], "grid": [32]}
    second, printed = launch(settings, file)
    assert f"first trials: the best of first (value {best.value:.6g}" in printed
    assert "does not fit and is drawn: batch_size = 64" in printed
    begun = trials(second, "random")
    assert len(begun) == 6  # counted in the budget
    assert begun[0].params["lr"] == 0.5
    assert attributes.START not in begun[0].user_attrs
    assert (begun[1].params["lr"], begun[1].params["beta"]) == (best.given["lr"], 0.9)
    start = begun[1].user_attrs[attributes.START]
    assert (start["experiment"], start["trial"], start["dropped"]) == ("first", best.number, {"batch_size": 64})
    assert all(attributes.START not in trial.user_attrs for trial in [*begun[2:], *trials(second, "grid")])
    notes = compare(second._experiment.storage, ["second"]).experiments[0].notes
    assert any("first trials of random have configurations of first, counted in the budget" in note for note in notes)
    if second.best().attrs.get(attributes.START):
        assert tomllib.loads(second.exported_texts()[0])["provenance"]["start"]["experiment"] == "first"

    # The same launch goes on, with or without the key, also if the earlier experiment is gone; another list is refused.
    hpo.delete("first", settings=settings)
    for like in (["first"], None):
        more = {key: value for key, value in {**file, "like": like}.items() if value is not None}
        _, printed = launch(settings, more)
        assert "finished already" in printed
    with pytest.raises(ExperimentError, match=r'like: \["first"\] -> \["second"\]'):
        launch(settings, {**file, "like": ["second"]})


def test_an_exported_start_says_where_it_is_from(settings: hpo.Settings) -> None:
    launch(settings, study("first"))
    second, _ = launch(settings, study("second", budget={"trials": 1}), like=["first"])
    provenance = tomllib.loads(second.exported_texts()[0])["provenance"]
    assert provenance["start"]["experiment"] == "first"
    again, printed = launch(settings, study("third", try_first=[dict(second.best().params)]), like=["first", "second"])
    assert "it is tried already, so it is left out" in printed or len(trials(again, "random")) == 6


def test_like_refuses_what_measures_something_else(settings: hpo.Settings) -> None:
    launch(settings, study("first"))
    for keys, message in (
        ({"direction": "minimize"}, "has the direction 'maximize', and 'other' has 'minimize'"),
        ({"like": ["other"]}, "is the experiment itself"),
        ({"space": {"lr": {"low": 1e-9, "high": 1e-8}}}, "nothing of the best of first"),
    ):
        with pytest.raises((UsageError, ExperimentError), match=message):
            launch(settings, study("other", **{"like": ["first"], **keys}))
    with pytest.raises(ExperimentError, match=r"there is no experiment 'frist'.*did you mean 'first'"):
        launch(settings, study("other", like=["frist"]))
    assert hpo.status(settings=settings) == ["first"]  # nothing was written


def test_a_space_grows_with_what_was_learnt(settings: hpo.Settings) -> None:
    launch(
        settings, study("small", space={**SPACE, "lr": {"low": 1e-2, "high": 0.5, "log": True}}, budget={"trials": 20})
    )
    wider = {**SPACE, "batch_size": [32, 64, 128]}
    file = study("wide", space=wider, samplers=["random", "tpe"], budget={"trials": 4})
    wide, printed = launch(settings, file, imports=["small"])
    assert "20 finished trials of small imported into wide, known to tpe" in printed
    by_sampler = {entry["sampler"]: entry for entry in wide.status()["studies"]}
    assert (by_sampler["tpe"]["knowledge"], by_sampler["random"]["knowledge"]) == (20, 0)
    assert [len(trials(wide, sampler)) for sampler in ("random", "tpe")] == [4, 4]  # no budget, and none of Optuna's

    # The model is used from the first trial on: nothing is left of random search, which draws the same for both.
    random, tpe = (
        [trial.params for trial in trials(launch(settings, {**file, "name": name}, imports=given)[0], "tpe")]
        for name, given in (("without", []), ("with", ["small"]))
    )
    assert random != tpe
    notes = compare(wide._experiment.storage, ["wide"]).experiments[0].notes
    assert any("Imported trials informed tpe (20)" in note for note in notes)

    # Launched again, nothing comes twice; another repeat gets the same knowledge; growing again takes it on.
    again, printed = launch(settings, {**file, "repeats": 2}, imports=["small"])
    assert "0 finished trials of small imported into wide, known to tpe; 20 are there already" in printed
    assert sorted(entry["knowledge"] for entry in again.status()["studies"]) == [0, 0, 20, 20]
    line = hpo.import_trials("wide", write(settings, {**file, "name": "wider"}), settings=settings)
    assert line.startswith("36 finished trials of wide imported into wider")  # 2 x 8 of its own


def test_an_experiment_of_the_former_default_goes_on(settings: hpo.Settings) -> None:
    """A file that names no sampler meant TPE; now it means auto, but for an experiment that was made with TPE."""
    unnamed = {key: value for key, value in study("old").items() if key != "samplers"}
    launch(settings, {**unnamed, "samplers": ["tpe"]})
    again, printed = launch(settings, {**unnamed, "budget": {"trials": 8}})
    assert "old extended: budget.trials: 6 -> 8" in printed
    assert list(again.studies) == ["old/tpe/0"]
    new, _ = launch(settings, {**unnamed, "name": "new"})
    assert list(new.studies) == ["new/auto/0"]
    (entry,) = new.status()["studies"]
    assert entry["drawn_by"] == "tpe: the first 10 trials are drawn at random"


def write(settings: hpo.Settings, table: dict[str, Any]) -> Path:
    import tomli_w

    path = Path(settings.home_path).parent / f"{table['name']}.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def test_what_is_imported_is_never_the_best(settings: hpo.Settings, tmp_path: Path) -> None:
    """A CSV may say anything of its trials: nothing of it is a result."""
    rows = ["lr,beta,batch_size,value", *(f"{0.01 * index},0.9,32,{100 + index}" for index in range(1, 31))]
    (tmp_path / "known.csv").write_text("\n".join(rows))
    file = write(settings, study("mine", samplers=["tpe"], budget={"trials": 5}))
    assert "30 finished trials" in hpo.import_trials(tmp_path / "known.csv", file, settings=settings)
    assert hpo.load("mine", settings=settings).status()["studies"][0]["states"]["complete"] == 0
    with pytest.raises(ExperimentError, match="no trial of 'mine' has completed"):
        hpo.load("mine", settings=settings).best()
    done, _ = launch(settings, study("mine", samplers=["tpe"], budget={"trials": 5}))
    assert done.best().value < 2
    assert done.studies["mine/tpe/0"].best_value < 2
    assert len(done.studies["mine/tpe/0"].trials) == 5
    # What was best there is where the sampler looks: the largest learning rates of the file, and its batch size.
    assert [trial.params["batch_size"] for trial in trials(done, "tpe")].count(32) >= 3
    exported = tomllib.loads(done.exported_texts()[0])
    assert exported["provenance"]["value"] < 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("lr,beta,batch_size\n0.1,0.9,32\n", "no column with the values; expected 'value'"),
        ("lr,batch_size,value\n0.1,32,1\n", "there is no column for beta"),
        ("lr,beta,batch_size,value,widht\n0.1,0.9,32,1,3\n", "the column 'widht' is no parameter of 'mine'"),
        ("lr,lr,beta,batch_size,value\n0.1,0.1,0.9,32,1\n", "the column 'lr' is there twice"),
        ("lr,beta,batch_size,value\nfast,0.9,32,1\n", "line 2: lr 'fast' is no number"),
        ("lr,beta,batch_size,value\n0.1,0.9,many,1\n", r"line 2: batch_size 'many' is no number; expected one of"),
        ("lr,beta,batch_size,value\n0.1,0.9,32,good\n", "line 2: value 'good' is no number"),
        ("lr,beta,batch_size,value\n0.1,0.9\n", "line 2: has 2 cells; expected 4"),
        ("lr,beta,batch_size,value,state\n0.1,0.9,32,1,done\n", "line 2: state 'done' is not known"),
        ("lr;beta;batch_size;value\n0.1;0.9;32;1\n", "separate the columns by commas"),
        ("lr,beta,batch_size,value\n", "has no finished trial"),
        ("lr,beta,batch_size,value\n50,0.9,32,1\n", "no trial of .* fits 'mine': 1 because lr is outside of its range"),
        ("lr,beta,batch_size,value,epochs\n0.1,0.9,32,1,7\n", "epochs has another value there"),
    ],
)
def test_a_file_with_mistakes(settings: hpo.Settings, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "known.csv").write_text(text)
    file = write(settings, study("mine", samplers=["tpe"]))
    with pytest.raises((UsageError, ExperimentError), match=message):
        hpo.import_trials(tmp_path / "known.csv", file, settings=settings)
    assert hpo.status(settings=settings) == []


def test_what_cannot_be_imported(settings: hpo.Settings) -> None:
    launch(settings, study("first"))
    with pytest.raises(UsageError, match="random learns nothing from imported trials"):
        launch(settings, study("other"), imports=["first"])
    with pytest.raises(UsageError, match="of its last epoch, and in 'other' of its best one"):
        launch(settings, study("other", value="best", samplers=["tpe"]), imports=["first"])
    fixed = {"epochs": 3, "epoch_seconds": 0.0}
    with pytest.raises(ExperimentError, match="6 because epochs has another value there"):
        launch(settings, study("other", samplers=["tpe"], fixed=fixed), imports=["first"])
    assert hpo.status(settings=settings) == ["first"]


def test_a_program_with_another_command_is_another_training(settings: hpo.Settings) -> None:
    opened = open_storage(settings.storage)
    made = []
    for name, flag in (("one", "--small"), ("two", "--large")):
        table = {"name": name, "trainer": "program", "command": f"python train.py {flag} --lr {{lr}}", "metric": "loss"}
        table |= {"metrics": {"loss": "loss=([0-9.]+)"}, "budget": {"trials": 2}, "space": {"lr": SPACE["lr"]}}
        made.append(parse_study_file(table, "study.toml"))
    create_experiment(opened, made[0])
    with pytest.raises(UsageError, match=r"the command of .one. is python train\.py --small"):
        read_import(opened, made[1], "one")
    opened.engine.dispose()


def test_optunas_own_export_can_be_imported(settings: hpo.Settings, tmp_path: Path) -> None:
    """``study.trials_dataframe()`` as a CSV, with its states and what is said twice."""
    lines = [
        "number,value,datetime_start,datetime_complete,duration,params_batch_size,params_beta,params_lr,user_attrs_a,state",
        "0,0.5,2026-01-01,2026-01-01,0 days,32,0.9,0.1,x,COMPLETE",
        "1,0.5,2026-01-01,2026-01-01,0 days,32,0.9,0.1,x,COMPLETE",
        "2,,2026-01-01,2026-01-01,0 days,32,0.9,0.2,x,FAIL",
        "3,nan,2026-01-01,2026-01-01,0 days,64,0.9,0.3,x,COMPLETE",
        "4,0.2,2026-01-01,2026-01-01,0 days,64,0.9,0.3,x,PRUNED",
    ]
    (tmp_path / "optuna.csv").write_text("\n".join(lines))
    line = hpo.import_trials(
        tmp_path / "optuna.csv", write(settings, study("mine", samplers=["tpe"])), settings=settings
    )
    assert line.startswith("3 finished trials")
    assert "1 because its state is fail" in line
    assert "1 because it is there twice" in line


def bowl(trial: Any) -> float:
    """An objective of two parameters; the best value is at x = 0.25, any width."""
    x, width = trial.suggest_float("x", 0.0, 1.0), trial.suggest_int("width", 1, 9, step=2)
    return float((x - 0.25) ** 2 + 0 * width)


def branching(trial: Any) -> float:
    return float(trial.suggest_float("x", 0, 1) + (trial.suggest_float("y", 0, 1) if trial.number % 2 else 0))


def launch_objective(settings: hpo.Settings, objective: Any, trials: int, name: str, **keys: Any) -> Any:
    options = {"launcher": "inline", "gpus": "none", "settings": settings, "progress": PlainProgress(io.StringIO())}
    return hpo.launch(objective, trials=trials, name=name, direction="minimize", sampler="tpe", **options, **keys)


def test_trials_are_imported_into_an_objective_once_its_finished_trials_say_what_it_suggests(
    settings: hpo.Settings, tmp_path: Path
) -> None:
    table = tmp_path / "known.csv"
    rows = [f"{0.25 + i / 1000},{1 + 2 * (i % 5)},{(i / 1000) ** 2}" for i in range(12)]
    table.write_text("\n".join(["x,width,value", *rows, "0.5,4,0.1", "1.5,3,0.1"]) + "\n")
    launch_objective(settings, bowl, 3, "bowl")
    line = hpo.import_trials(table, "bowl", settings=settings)
    assert line.startswith(f"12 finished trials of {table} imported into bowl, known to tpe; left out: ")
    done = launch_objective(settings, bowl, 8, "bowl")
    assert done.status()["studies"][0]["knowledge"] == 12
    begun = done.studies["bowl/tpe/0"].trials
    assert len(begun) == 8
    # Without them the first ten trials are random draws; with them TPE has enough from the fourth one on.
    alone = launch_objective(settings, bowl, 8, "alone").studies["alone/tpe/0"].trials
    assert [trial.params for trial in begun[:3]] == [trial.params for trial in alone[:3]]
    assert all(mine.params != theirs.params for mine, theirs in zip(begun[3:], alone[3:], strict=True))
    assert done.best().value == min(trial.value for trial in begun)  # never an imported one
    other = launch_objective(settings, bowl, 2, "bowl-2")
    assert other.status()["studies"][0]["knowledge"] == 0
    assert hpo.import_trials("bowl", "bowl-2", settings=settings).startswith("20 finished trials of bowl imported")


def test_an_objective_that_does_not_say_what_it_suggests_is_refused_with_the_mend(
    settings: hpo.Settings, tmp_path: Path
) -> None:
    table = tmp_path / "known.csv"
    table.write_text("x,value\n0.5,0.1\n")
    launch_objective(settings, branching, 4, "branching")
    with pytest.raises(UsageError, match=r"suggests y in some trials only.*hpo launch --like NAME"):
        hpo.import_trials(table, "branching", settings=settings)
    with pytest.raises(UsageError, match=r"'new' has none; launch it with a few trials, import then"):
        launch_objective(settings, bowl, 2, "new", imports=[table])


@hpo.trainer("two-metrics", metrics={"value": "maximize", "loss": "minimize"})
def two_metrics(config: SleepingConfig, run: hpo.Run) -> Iterator[dict[str, float]]:
    """Another trainer with the same parameters."""
    yield {"value": config.lr, "loss": config.lr}


def make(settings: hpo.Settings, name: str, **keys: Any) -> None:
    """An experiment of which no trial has begun."""
    create_experiment(open_storage(settings.storage), parse_study_file(study(name, **keys), "study.toml"))


@pytest.mark.parametrize("option", ["like", "imports"])
def test_an_earlier_experiment_that_is_of_no_use_is_refused_before_anything_is_written(
    option: str, settings: hpo.Settings
) -> None:
    make(settings, "of-value", trainer="two-metrics")
    make(settings, "of-loss", trainer="two-metrics", metric="loss")
    make(settings, "deleted", trainer="two-metrics")
    hpo.delete("deleted", settings=settings)
    for earlier, keys, message in (
        ("of-value", {}, "has the trainer 'two-metrics', and 'new' has 'sleeping'"),
        ("of-loss", {"trainer": "two-metrics"}, "has the metric 'loss', and 'new' has 'value'"),
        ("of-value", {"trainer": "two-metrics"}, "no trial of 'of-value' has completed yet|has no finished trial"),
        ("deleted", {"trainer": "two-metrics"}, "there is no experiment 'deleted'"),
    ):
        with pytest.raises((UsageError, ExperimentError), match=message):
            launch(settings, study("new", samplers=["tpe"], **keys), **{option: [earlier]})
    assert sorted(hpo.status(settings=settings)) == ["of-loss", "of-value"]
