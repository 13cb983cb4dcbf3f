"""Study files without mistakes: what they mean, how they are stored, compared and extended."""

import json
from pathlib import Path

import pytest

from hpo.errors import ExperimentError, StudyFileError, UsageError
from hpo.search.pruner_registry import PrunerSpec
from hpo.search.sampler_registry import SamplerSpec
from hpo.search.space import Categorical, Float, Int
from hpo.studyfile.budget import Budget
from hpo.studyfile.load import load_study_file, study_file_from_json
from tests.unit.study_files import configure, fields, read

STUDIES = Path(__file__).parents[3] / "studies"

FULL = """
name = "Mädchen 1 – Größe"
trainer = "toy"
metric = "val_accuracy"
value = "best"
samplers = ["grid", { name = "tpe", label = "tpe-5", n_startup_trials = 5 }, "tpe"]
repeats = 2
budget = { epochs = 96 }
pruner = { name = "patient", patience = 2, min_delta = 0.1, wrapped = { name = "asha", min_epochs = 2 } }
seed = 7
target = 0.9
audit = true
slots = 4
epoch_timeout_seconds = 60
max_retries = 1

[fixed]
epochs = 8
milestones = [2, 4]
optimizer = { kind = "adam", eps = 1e-6 }

[space]
lr = { low = 0.001, high = 1, log = true, grid = 4 }
width = { low = 8, high = 64, step = 8 }
scheduler = { choices = ["constant", "step"], grid = true }
step_size = { low = 1, high = 4, when = { scheduler = "step" }, grid = [1, 4] }
nesterov = [true, false]

[[try_first]]
lr = 1
width = 16
milestones = []

[provenance]
exported = 2026-01-02T03:04:05Z
"""


@pytest.fixture
def full(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(FULL.replace("–", "-"))
    return load_study_file(path)


def test_everything_that_a_file_says(full):
    assert full.name == "Mädchen 1 - Größe"
    assert (full.trainer, full.metric, full.direction, full.value) == ("toy", "val_accuracy", "maximize", "best")
    assert [(sampler.name, sampler.label) for sampler in full.samplers] == [
        ("grid", "grid"),
        ("tpe", "tpe-5"),
        ("tpe", "tpe"),
    ]
    assert full.samplers[1].options.model_dump() == {
        "n_startup_trials": 5,
        "n_ei_candidates": 24,
        "multivariate": True,
        "group": False,
        "constant_liar": True,
        "max_observations": 1000,
        "pruned": "worse",
    }
    assert full.pruner.as_table() == {
        "name": "patient",
        "patience": 2,
        "min_delta": 0.1,
        "wrapped": {
            "name": "asha",
            "min_epochs": 2,
            "reduction_factor": 3,
            "min_early_stopping_rate": 0,
            "bootstrap_count": 0,
        },
    }
    assert (full.repeats, full.budget, full.seed, full.target) == (2, Budget(epochs=96), 7, 0.9)
    assert (full.audit, full.slots, full.epoch_timeout_seconds, full.max_retries) == (True, 4, 60.0, 1)
    assert full.fixed == {"epochs": 8, "milestones": [2, 4], "optimizer": {"kind": "adam", "eps": 1e-6}}
    assert full.space.parameters == {
        "lr": Float(0.001, 1.0, log=True, grid=(0.001, 0.01, 0.1, 1.0)),
        "width": Int(8, 64, step=8),
        "scheduler": Categorical(("constant", "step"), grid=("constant", "step")),
        "step_size": Int(1, 4, grid=(1, 4), when={"scheduler": ("step",)}),
        "nesterov": Categorical((True, False)),
    }
    assert full.try_first == [{"lr": 1.0, "width": 16, "milestones": []}]
    assert full.provenance == {"exported": "2026-01-02T03:04:05+00:00"}
    assert full.space.size() == 12
    assert full.study_names()[:4] == [
        ("Mädchen 1 - Größe/grid/0", full.samplers[0], 0),
        ("Mädchen 1 - Größe/tpe-5/0", full.samplers[1], 0),
        ("Mädchen 1 - Größe/tpe/0", full.samplers[2], 0),
        ("Mädchen 1 - Größe/grid/1", full.samplers[0], 1),
    ]


def test_defaults():
    study_file = read()
    assert study_file.direction == "minimize"
    assert study_file.samplers == [SamplerSpec("random", "random")]
    assert study_file.pruner == PrunerSpec()
    assert (study_file.value, study_file.repeats, study_file.seed, study_file.max_retries) == ("last", 1, 0, 3)
    assert (study_file.target, study_file.slots, study_file.epoch_timeout_seconds) == (None, None, None)
    assert study_file.audit is False
    assert read(samplers=None).samplers[0].name == "auto"


def test_json_and_back(full):
    for study_file in (full, read(), read(space=None, budget=None, fixed={"lr": 1})):
        stored = json.loads(json.dumps(study_file.to_json(), allow_nan=False))
        again = study_file_from_json(stored)
        assert again == study_file
        assert again.to_json() == study_file.to_json()
        assert list(again.space.parameters) == list(study_file.space.parameters)


def test_an_exported_file_has_an_empty_space_and_one_trial(tmp_path):
    study_file = read(space=None, budget=None, samplers=None, fixed={"lr": 0.1}, provenance={"value": 0.5})
    assert study_file.budget == Budget(trials=1)
    assert study_file.space.grid() == [{}]
    assert fields(configure(study_file, {}))["lr"] == 0.1
    path = tmp_path / "best.json"
    path.write_text(json.dumps(study_file.to_json()))
    assert load_study_file(path) == study_file


@pytest.mark.parametrize(
    ("metric", "direction"),
    [("val_loss", "minimize"), ("val_accuracy", "maximize")],
)
def test_direction_follows_from_the_trainer(metric, direction):
    assert read(metric=metric).direction == direction


@pytest.mark.parametrize(
    ("metric", "direction"),
    [("loss", "minimize"), ("val_Error", "minimize"), ("acc", "maximize"), ("F_score", "maximize")],
)
def test_direction_follows_from_the_metrics_name(metric, direction):
    bare = {"trainer": "bare", "fixed": {}, "space": {"x": [1.0, 2.0]}}
    assert read(metric=metric, **bare).direction == direction


def test_a_given_direction_counts():
    assert read(metric="speed", direction="minimize").direction == "minimize"


def test_configure_merges_sampled_over_fixed():
    study_file = read(fixed={"epochs": 8, "step_size": 2, "scheduler": "step"})
    assert fields(configure(study_file, {"lr": 0.5, "step_size": 4}))["step_size"] == 4
    assert fields(configure(study_file, {"lr": 0.5, "scheduler": "constant"})) == {
        "lr": 0.5,
        "beta": 0.9,
        "width": 64,
        "depth": 2,
        "batch_size": 32,
        "scheduler": "constant",
        "step_size": 2,
        "gamma": 0.1,
        "nesterov": False,
        "milestones": (),
        "epochs": 8,
        "optimizer": {"kind": "sgd", "momentum": 0.9},
    }


def test_configure_reads_a_whole_stored_configuration():
    study_file = read()
    config = configure(study_file, {"lr": 0.25, "scheduler": "step", "step_size": 2})
    assert configure(study_file, json.loads(config.model_dump_json())) == config


def test_configure_refuses_with_the_values_and_the_reason():
    with pytest.raises(ExperimentError, match=r"lr = 0.5, milestones = \[9\].*not before the last epoch, 8"):
        configure(read(), {"lr": 0.5, "milestones": [9]})


def test_budgets_of_samplers():
    study_file = read(
        samplers=["grid", "random_2x", "tpe"],
        space={"lr": {"low": 0.1, "high": 1.0, "grid": 3}, "width": {"low": 1, "high": 9, "grid": 3}},
    )
    grid, twice, tpe = study_file.samplers
    assert study_file.budget_for(grid) == Budget(trials=9)
    assert study_file.budget_for(twice) == Budget(trials=24)
    assert study_file.budget_for(tpe) == Budget(trials=12)
    epochs = read(samplers=["random_2x"], budget={"epochs": 40})
    assert epochs.budget_for(epochs.samplers[0]).as_dict() == {"epochs": 80}


def test_max_epochs():
    lr = {"low": 0.1, "high": 1.0, "grid": 2}
    assert read().max_epochs() == 8
    assert read(fixed={}, space={"lr": lr}).max_epochs() == 10
    assert read(space={"lr": lr, "epochs": {"low": 2, "high": 30}}).max_epochs() == 30
    assert read(space={"lr": lr, "epochs": [4, 5]}, samplers=["random"]).max_epochs() == 5
    assert read(space={"lr": lr, "epochs": [4, 5]}, samplers=["grid"]).max_epochs() == 8
    assert read(try_first=[{"epochs": 20}]).max_epochs() == 20
    assert read(trainer="bare", metric="loss", fixed={}, space={"x": [1.0]}).max_epochs() is None


def test_example_configs_hold_every_choice_and_the_highest_numbers():
    study_file = read(
        space={
            "lr": {"low": 0.1, "high": 1.0},
            "width": {"low": 8, "high": 512},
            "batch_size": [16, 32, 64],
            "scheduler": ["constant", "step"],
        }
    )
    configs = [fields(config) for config in study_file.example_configs()]
    assert configs[0]["width"] == 512
    assert {config["batch_size"] for config in configs} == {16, 32, 64}
    assert {config["scheduler"] for config in configs} == {"constant", "step"}
    assert len(configs) <= 5


def test_differences_and_extensions():
    old = read(repeats=2, samplers=["random", "tpe"])

    def against(**changes):
        new = read(**{"repeats": 2, "samplers": ["random", "tpe"], **changes})
        return new.differences(old), new.is_extension_of(old)

    assert against() == ([], True)
    assert against(budget={"trials": 24}) == (["budget.trials: 12 -> 24"], True)
    assert against(budget={"trials": 6}) == (["budget.trials: 12 -> 6"], False)
    assert against(budget={"epochs": 96}) == (
        ["budget.trials: 12 -> not given", "budget.epochs: not given -> 96"],
        False,
    )
    assert against(repeats=3) == (["repeats: 2 -> 3"], True)
    assert against(repeats=1) == (["repeats: 2 -> 1"], False)
    assert against(samplers=["random", "tpe", "qmc"]) == (
        [
            'samplers.qmc.name: not given -> "qmc"',
            'samplers.qmc.label: not given -> "qmc"',
            'samplers.qmc.qmc_type: not given -> "sobol"',
            "samplers.qmc.scramble: not given -> true",
        ],
        True,
    )
    assert against(samplers=["tpe", "random"]) == ([], True)
    assert against(samplers=["random"])[1] is False
    assert against(samplers=["random", {"name": "tpe", "n_startup_trials": 3}]) == (
        ["samplers.tpe.n_startup_trials: 10 -> 3"],
        False,
    )
    assert against(slots=4) == (["slots: not given -> 4"], True)
    assert against(target=0.5)[1] is True
    assert against(epoch_timeout_seconds=3.5)[1] is True
    assert against(max_retries=0)[1] is True
    assert against(audit=True) == (["audit: false -> true"], False)
    assert against(seed=1) == (["seed: 0 -> 1"], False)
    assert against(provenance={"a": 1}) == ([], True)
    assert against(fixed={"epochs": 9}) == (["fixed.epochs: 8 -> 9"], False)
    assert against(pruner="median")[1] is False
    assert against(try_first=[{"lr": 0.5}]) == (
        ["try_first: [] -> not given", "try_first[0].lr: not given -> 0.5"],
        False,
    )


def test_the_order_of_the_space_matters():
    lr, width = {"low": 0.1, "high": 1.0}, {"low": 1, "high": 2}
    new, old = read(space={"lr": lr, "width": width}), read(space={"width": width, "lr": lr})
    assert new.differences(old) == ["order of [space]: width, lr -> lr, width"]
    assert not new.is_extension_of(old)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "mnist.toml").write_text('name = "x"')

    def told(name, content=None):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(StudyFileError) as caught:
            load_study_file(tmp_path / name)
        assert isinstance(caught.value, UsageError)
        assert caught.value.exit_code == 2
        return caught.value.mistakes

    assert told("minst.toml") == [
        f"cannot be read: No such file or directory (did you mean {str(tmp_path / 'mnist.toml')!r}?)"
    ]
    assert told("nothing-like-it") == ["cannot be read: No such file or directory"]
    assert told("") == ["cannot be read: Is a directory"]
    assert told("bytes.toml", b'name = "x"\nmetric = "\xff"') == ["line 2: byte 0xff is not UTF-8 text"]
    assert told("syntax.toml", b'name = "x"\nmetric = = 3') == ["not TOML: Invalid value (at line 2, column 10)"]
    assert told("deep.toml", b"a = " + b"[" * 10_000) == ["nested too deeply to be a study file"]
    assert told("list.json", b"[1]") == ["not a study file: expected an object with the key name and others"]
    assert "line 1 column 2" in told("half.json", b"{")[0]


def test_a_module_that_cannot_be_imported_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no_such_module"):
        load_study_file(tmp_path / "x.toml", "no_such_module")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.name)
def test_every_study_of_the_repository_loads(path):
    study_file = load_study_file(path)
    assert study_file_from_json(study_file.to_json()) == study_file
    assert study_file.example_configs()
