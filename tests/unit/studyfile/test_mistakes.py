"""Study files with mistakes: every one is found, at once, with its path, what was expected and the near miss."""

import math

import pytest

from hpo.errors import StudyFileError
from hpo.studyfile.load import load_study_file, parse_study_file
from hpo.studyfile.validation import shown, toml_path
from tests.unit.study_files import mistakes, study

LR = {"low": 1e-3, "high": 1.0}


def in_space(**parameters):
    """The mistakes of a space beside ``lr``."""
    return mistakes(space={"lr": LR, **parameters})


def test_all_at_once_in_one_message(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        """
nam = "x"
name = "a/b"
trainer = "toy"
metric = "val_los"
samplers = ["tpee", "random", "random", { name = "tpe", n_startup = 3 }]
repeats = 0
budget = { trials = 0 }
pruner = { name = "asha", min_epoch = 1 }

[fixed]
epochs = 0
betta = 0.5

[space]
lr = { low = 0, high = 100.0, log = true }
width = { low = 512.0, high = 1 }
scheduler = ["constant", "constant", "stp"]
step_size = { low = 1, high = 4, when = { schedular = "step" } }

[[try_first]]
width_1 = 3
"""
    )
    with pytest.raises(StudyFileError) as caught:
        load_study_file(path)
    assert str(caught.value).splitlines() == [
        f"{path}: 20 mistakes",
        "  repeats: 0 is refused; expected greater than or equal to 1",
        "  nam: unknown name (did you mean 'name'?)",
        "  name: '/' in 'a/b' is refused; expected letters, digits, spaces and - _ .",
        "  metric: unknown metric of the trainer 'toy': 'val_los' (did you mean 'val_loss'?)",
        "  samplers[0]: unknown sampler 'tpee' (did you mean 'tpe'?)",
        "  samplers[2]: the sampler 'random' is there twice; give one of them another label: "
        "{ name = 'random', label = … }",
        "  samplers[3].n_startup: unknown name (did you mean 'n_startup_trials'?)",
        "  pruner.min_epoch: unknown name (did you mean 'min_epochs'?)",
        "  space.lr.low: 0 is refused; expected greater than 0",
        "  space.lr.high: 100.0 is refused; expected less than or equal to 10",
        "  space.lr.low: a log range cannot start at 0; expected a small number above 0",
        "  space.width.low: 512.0 is refused; width is a whole number, so expected 512",
        "  space.width: low 512.0 is above high 1",
        "  space.scheduler.choices[1]: 'constant' is there twice; each value once",
        "  space.scheduler.choices[2]: 'stp' is not known (did you mean 'step'?); "
        "expected 'constant', 'step' or 'cosine'",
        "  space.step_size.when.schedular: schedular is not in [space] (did you mean 'scheduler'?); "
        "a condition names another searched parameter",
        "  fixed.betta: unknown parameter of the trainer's configuration: 'betta' (did you mean 'beta'?)",
        "  fixed.epochs: 0 is refused; expected greater than or equal to 1",
        "  try_first[0].width_1: unknown parameter 'width_1' (did you mean 'width'?)",
        "  budget.trials: 0 is refused; expected greater than or equal to 1",
    ]


def test_an_empty_file():
    with pytest.raises(StudyFileError) as caught:
        parse_study_file({}, "empty.toml")
    assert caught.value.mistakes == [
        "name: missing; it must be given",
        "trainer: missing; it must be given",
        "metric: missing; it must be given",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"trainer": "toi"},
            "trainer: unknown trainer 'toi' (did you mean 'toy'?) (name the module of your own trainers",
        ),
        ({"name": 3}, "name: 3 is refused; expected a valid string"),
        ({"name": " x"}, "name: ' x' is refused; expected no space at either end"),
        ({"name": ".."}, "name: '..' is refused; expected 1 to 200 characters (those beyond"),
        ({"name": "x" * 201}, f"name: '{'x' * 78}… is refused; expected 1 to 200 characters"),
        ({"name": "a\nb"}, r"name: '\n' in 'a\nb' is refused"),
        ({"direction": "up"}, "direction: 'up' is not known; expected 'minimize' or 'maximize'"),
        ({"value": "lst"}, "value: 'lst' is not known (did you mean 'last'?); expected 'last' or 'best'"),
        (
            {"metric": "speed"},
            "direction: missing; it does not follow from the name 'speed', so give 'minimize' or 'maximize'",
        ),
        ({"samplers": []}, "samplers: is empty; expected at least one of grid, random"),
        ({"samplers": "tpe"}, "samplers: 'tpe' is refused; expected a valid list"),
        ({"samplers": [3]}, "samplers[0]: 3 is no sampler; expected a name, or a table with name and options"),
        ({"samplers": [{"label": "a"}]}, "samplers[0].name: missing; expected one of grid, random"),
        ({"samplers": [{"name": "tpe", "label": "a/b"}]}, "samplers[0].label: '/' in 'a/b' is refused"),
        ({"samplers": [{"name": "tpe", "label": 4}]}, "samplers[0].label: 4 is no text"),
        (
            {"samplers": [{"name": "tpe", "n_startup_trials": "4"}]},
            "samplers[0].n_startup_trials: '4' is refused; expected a valid integer",
        ),
        (
            {"samplers": [{"name": "tpe", "group": True, "multivariate": False}]},
            "samplers[0]: group needs multivariate",
        ),
        (
            {"samplers": [{"name": "qmc", "qmc_type": "sobel"}]},
            "samplers[0].qmc_type: 'sobel' is not known (did you mean",
        ),
        ({"samplers": [{"name": "random", "seed": 3}]}, "samplers[0].seed: unknown name; known: label"),
        ({"repeats": 1.5}, "repeats: 1.5 is refused; expected a valid integer"),
        ({"repeats": True}, "repeats: true is refused; expected a valid integer"),
        ({"budget": {}}, "budget: {} is refused; expected either trials or epochs, one of hours"),
        ({"budget": {"hours": 1, "seconds": 3.0}}, "budget: {hours = 1, seconds = 3.0} is refused; expected either"),
        ({"budget": {"hours": 0}}, "budget.hours: 0 is refused; expected greater than 0"),
        ({"budget": {"trials": 20, "seconds": -5}}, "budget.seconds: -5 is refused; expected greater than 0"),
        ({"budget": {"seconds": "5"}}, "budget.seconds: '5' is refused; expected a valid number"),
        ({"timeout": 60}, "timeout: unknown name; write budget = { seconds = 60 }"),
        ({"budget": {"trials": 3, "epochs": 30}}, "budget: {trials = 3, epochs = 30} is refused; expected either"),
        ({"budget": {"trial": 3}}, "budget.trial: unknown name (did you mean 'trials'?)"),
        ({"budget": 27}, "budget: 27 is refused; expected a valid dictionary"),
        ({"budget": None}, "budget: missing; expected { trials = N }, { epochs = N } or { hours = N }"),
        ({"budget": {"epochs": 7}}, "budget.epochs: 7 is less than one trial may take; expected at least 8"),
        ({"try_first": [{}] * 13}, "budget.trials: 12 is less than the 13 configurations of try_first"),
        ({"seed": -1}, "seed: -1 is refused; expected greater than or equal to 0"),
        ({"slots": 0}, "slots: 0 is refused; expected greater than or equal to 1"),
        ({"target": math.inf}, "target: inf is refused; expected a finite number"),
        ({"audit": "yes"}, "audit: 'yes' is refused; expected a valid boolean"),
        ({"epoch_timeout_seconds": 0}, "epoch_timeout_seconds: 0 is refused; expected greater than 0"),
        ({"trial_timeout_seconds": 0}, "trial_timeout_seconds: 0 is refused; expected greater than 0"),
        (
            {"stop_at_target": True},
            "stop_at_target: there is no target to stop at; expected target = a value of the metric",
        ),
        ({"max_retries": -1}, "max_retries: -1 is refused; expected greater than or equal to 0"),
        (
            {"metric": "test_loss"},
            "metric: test_loss does not exist in a search, which never uses the test set; take val_loss",
        ),
        ({"pruner": "ahsa"}, "pruner: unknown pruner 'ahsa' (did you mean 'asha'?)"),
        ({"pruner": {"name": "threshold"}}, "pruner: give lower, upper or both"),
        ({"pruner": {"name": "threshold", "lower": 2.0, "upper": 1.0}}, "pruner: lower 2 is above upper 1"),
        ({"pruner": "patient"}, "pruner.patience: missing; it must be given"),
        (
            {"pruner": {"name": "patient", "patience": 2, "wrapped": "medan"}},
            "pruner.wrapped: unknown pruner 'medan' (did you",
        ),
        (
            {"pruner": {"name": "patient", "patience": 2, "wrapped": {"name": "asha", "k": 3}}},
            "pruner.wrapped.k: unknown name; known: min_epochs",
        ),
        (
            {"pruner": {"name": "hyperband", "min_epochs": 9}},
            "pruner.min_epochs: 9 is more than the 8 epochs of a trial",
        ),
        ({"fixed": {"epochs": "8"}}, "fixed.epochs: '8' is text; expected a number"),
        ({"fixed": {"nesterov": 1}}, "fixed.nesterov: 1 is a number; expected true or false"),
        ({"fixed": {"width": True}}, "fixed.width: true is true or false; expected a number"),
        (
            {"fixed": {"width": 2**70}},
            "fixed.width: 1180591620717411303424 is too large; expected a number of at most 64",
        ),
        ({"fixed": {"beta": math.nan}}, "fixed.beta: nan is refused; expected a finite number"),
        ({"fixed": {"batch_size": 48}}, "fixed.batch_size: 48 is not known; expected 16, 32 or 64"),
        ({"fixed": {"optimizer": {"kind": "adm"}}}, "fixed.optimizer: {kind = 'adm'} is refused; expected Input tag"),
        (
            {"fixed": {"optimizer": {"kind": "adam", "eps": -1}}},
            "fixed.optimizer.eps: -1 is refused; expected greater than 0",
        ),
        ({"fixed": {"milestones": [2, "x"]}}, "fixed.milestones[1]: 'x' is refused; expected a valid integer"),
        ({"provenance": {"a": [1, math.inf]}}, "provenance.a[1]: inf is refused; expected a finite number"),
        ({"space": 3}, "space: 3 is refused; expected a table of parameters"),
        ({"space": {}, "fixed": {}}, "fixed.lr: missing; it has no default, so fix or search it"),
        ({"samplers": ["cmaes"], "space": {"lr": [0.1, 0.2]}}, "samplers[0]: cmaes moves numbers without conditions"),
    ],
)
def test_one_mistake(changes, expected):
    (line,) = mistakes(**changes)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (5, "space.width: 5 is no range; expected a list of choices or a table with low and high (a single value"),
        ([], "space.width.choices: is empty; expected at least one value"),
        ({}, "space.width.low: missing; it must be given"),
        ({"low": 1, "hihg": 2}, "space.width.hihg: unknown name (did you mean 'high'?)"),
        ({"low": "1", "high": 2}, "space.width.low: '1' is refused; expected a finite number, whole ones up to 2**53"),
        ({"low": 1, "high": math.inf}, "space.width.high: inf is refused; expected a finite number"),
        ({"low": 1, "high": 2**53 + 1}, "space.width.high: 9007199254740993 is refused; expected a finite number"),
        ({"low": 0, "high": 8}, "space.width.low: 0 is refused; expected greater than or equal to 1"),
        ({"low": 8, "high": 4097}, "space.width.high: 4097 is refused; expected less than or equal to 4096"),
        ({"low": 9, "high": 8}, "space.width: low 9 is above high 8"),
        ({"low": 1, "high": 8.0}, "space.width.high: 8.0 is refused; width is a whole number, so expected 8"),
        ({"low": 1, "high": 8, "step": 0}, "space.width.step: 0 is refused; expected a number above 0"),
        ({"low": 1, "high": 8, "step": 0.5}, "space.width.step: 0.5 is refused; expected a whole number"),
        ({"low": 1, "high": 8, "step": 2}, "space.width.high: 8 is not reached from 1 in steps of 2; expected 7 or 9"),
        (
            {"low": 1, "high": 8, "step": 2, "log": True},
            "space.width.step: a log range has no step; give one of the two",
        ),
        ({"low": 1, "high": 8, "log": 1}, "space.width.log: 1 is refused; expected a valid boolean"),
        ({"low": 1, "high": 8, "grid": 0}, "space.width.grid: 0 points are refused; expected 1 to 10000"),
        (
            {"low": 1, "high": 8, "grid": []},
            "space.width.grid: [] is refused; expected a list of values or a number of",
        ),
        (
            {"low": 1, "high": 8, "grid": [1, 9]},
            "space.width.grid[1]: 9 is refused; expected a whole number from 1 to 8",
        ),
        ({"low": 1, "high": 8, "grid": [1, 1]}, "space.width.grid[1]: 1 is there twice; each value once"),
        (
            {"low": 1, "high": 4096, "grid": True},
            "space.width.grid: true means all values, of which there are too many",
        ),
        ([8, 8], "space.width.choices[1]: 8 is there twice; each value once"),
        ([8, "x"], "space.width.choices[1]: 'x' is refused; expected a valid integer"),
        ([8, [9]], "space.width.choices[1]: [9] is refused; expected text, a finite number, true or false"),
        ({"choices": [8, 9], "low": 1}, "space.width.low: unknown name; known: grid, when, choices"),
        ({"choices": [8, 9], "grid": [10]}, "space.width.grid: 10 is not among the choices [8, 9]"),
        (
            {"choices": [8, 9], "grid": 2},
            "space.width.grid: 2 is refused; expected true (all choices) or a list of choices",
        ),
        ([8, 5000], "space.width.choices[1]: 5000 is refused; expected less than or equal to 4096"),
    ],
)
def test_one_mistake_in_a_parameter(entry, expected):
    lines = in_space(width=entry)
    assert any(line.startswith(expected) for line in lines), lines


def test_ranges_only_of_numbers():
    assert in_space(batch_size={"low": 16, "high": 64}) == [
        "space.batch_size: takes listed values only, no range; expected a list of [16, 32, 64]"
    ]
    assert in_space(nesterov={"low": 0, "high": 1})[0] == "space.nesterov.low: 0 is a number; expected true or false"


def test_a_real_parameter_may_have_whole_bounds():
    from tests.unit.study_files import read

    assert read(space={"lr": {"low": 1, "high": 2}}).space.parameters["lr"].low == 1.0
    assert isinstance(read(space={"lr": {"low": 1, "high": 2}}).space.parameters["lr"].low, float)


def test_paths_and_values_as_toml_spells_them():
    assert toml_path("space", "lr", "low") == "space.lr.low"
    assert toml_path("try_first", 0, "größe 1") == 'try_first[0]."größe 1"'
    assert shown(True) == "true"
    assert shown({"a": [1, "x"]}) == "{a = [1, 'x']}"
    assert shown("x" * 200) == "'" + "x" * 78 + "…"
    assert shown(16**5000) == "a number of more than 80 digits"


def test_the_valid_study_of_these_tests_is_valid():
    assert parse_study_file(study(), "x").name == "a study"
