"""What people write who know another tool gets a message that shows the right line."""

import pytest

from hpo.errors import StudyFileError
from hpo.studyfile.load import load_study_file
from hpo.studyfile.notes import notes_on
from tests.unit.study_files import mistakes, read

LR = {"low": 1e-3, "high": 1.0}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"min": 1e-4, "max": 0.1}, "min, max: no key of a parameter; write lr = { low = 0.0001, high = 0.1 }"),
        (
            {"min": 1e-4, "max": 0.1, "distribution": "log_uniform_values"},
            "min, max, distribution: no key of a parameter; write lr = { low = 0.0001, high = 0.1, log = true }",
        ),
        ({"lower": 0.1, "upper": 1, "q": 0.1}, "write lr = { low = 0.1, high = 1, step = 0.1 }"),
        ({"values": [0.1, 0.2]}, "values: no key of a parameter; write lr = { choices = [0.1, 0.2] }"),
        ({"low": 0.1, "high": 1, "type": "float"}, "type: no key of a parameter; write lr = { low = 0.1, high = 1 }"),
        ({"low": 0.1, "high": 1, "scale": "log"}, "write lr = { low = 0.1, high = 1, log = true }"),
        ({"low": 1, "high": 5, "int": True}, "int: no key of a parameter; write lr = { low = 1, high = 5 }"),
        ({"value": 3}, "a single value is not searched; write lr = 3 in [fixed]"),
        (
            {"loguniform": [0.001, 0.1]},
            "loguniform: no key of a parameter; write lr = { low = 0.001, high = 0.1, log = true }",
        ),
        ({"quniform": [0, 1, 0.25]}, "write lr = { low = 0, high = 1, step = 0.25 }"),
        ({"randint": [1, 10]}, "write lr = { low = 1, high = 9 }"),
        ({"range": [0.1, 1]}, "write lr = { low = 0.1, high = 1 }"),
        ({"choice": [0.1, 1]}, "write lr = { choices = [0.1, 1] }"),
        ("tune.loguniform(1e-3, 0.1)", "is no range; write lr = { low = 0.001, high = 0.1, log = true }"),
        ("tune.choice([0.1, 0.2])", "is no range; write lr = { choices = [0.1, 0.2] }"),
        ("0.1..1", "is no range; write lr = { low = 0.1, high = 1 }"),
        ("often", "expected a list of choices or a table with low and high (a single value belongs in [fixed])"),
    ],
)
def test_entries_of_other_tools(entry, expected):
    (line,) = mistakes(space={"lr": entry})
    assert line.startswith("space.lr: ")
    assert line.endswith(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"samplers": ["TPE"]}, "samplers[0]: unknown sampler 'TPE' (did you mean 'tpe'?)"),
        ({"samplers": ["TPESampler"]}, "samplers[0]: unknown sampler 'TPESampler' (did you mean 'tpe'?)"),
        ({"samplers": ["CmaEsSampler"]}, "samplers[0]: unknown sampler 'CmaEsSampler' (did you mean 'cmaes'?)"),
        ({"samplers": ["bayesian"]}, "samplers[0]: unknown sampler 'bayesian' (did you mean 'tpe'?)"),
        ({"samplers": ["GridSampler"]}, "samplers[0]: unknown sampler 'GridSampler' (did you mean 'grid'?)"),
        ({"pruner": "MedianPruner"}, "pruner: unknown pruner 'MedianPruner' (did you mean 'median'?)"),
        (
            {"pruner": "SuccessiveHalvingPruner"},
            "pruner: unknown pruner 'SuccessiveHalvingPruner' (did you mean 'asha'?)",
        ),
        ({"pruner": {"name": "ASHA"}}, "pruner.name: unknown pruner 'ASHA' (did you mean 'asha'?)"),
        ({"n_trials": 30}, "n_trials: unknown name; write budget = { trials = 30 }"),
        ({"search_space": {}}, "search_space: unknown name; write [space], a table with an entry for each parameter"),
        ({"sampler": "tpe"}, 'sampler: unknown name; write samplers = ["tpe"]'),
        ({"sampler": "TPE"}, 'sampler: unknown name; write samplers = ["tpe"]'),
        ({"parallel": 4}, "parallel: unknown name; write the option --workers of hpo launch"),
        (
            {"n_startup_trials": 5},
            'n_startup_trials: unknown name; write samplers = [{ name = "tpe", n_startup_trials = 5 }]',
        ),
        ({"study_name": "x"}, 'study_name: unknown name; write name = "x"'),
        ({"n_jobs": 4}, "n_jobs: unknown name; write the option --workers of hpo launch"),
    ],
)
def test_names_of_other_tools(changes, expected):
    (line,) = mistakes(**changes)
    assert line == expected


def test_files_in_other_languages(tmp_path):
    def told(name, text):
        (tmp_path / name).write_text(text)
        with pytest.raises(StudyFileError) as caught:
            load_study_file(tmp_path / name)
        (line,) = caught.value.mistakes
        return line

    assert told("sweep.yaml", "method: bayes\n").startswith("is YAML; a study file is TOML or JSON: name = ")
    assert told("sweep", "method: bayes\nmetric:\n  name: x\n").startswith("is YAML; a study file is TOML or JSON")
    assert told("train.py", "import torch\n").startswith("is a program; a study file is TOML and names the trainer")
    assert told("broken.toml", "name = \n").startswith("not TOML")


def test_a_list_that_looks_like_a_range_gets_a_note():
    assert notes_on(read(space={"lr": [0.1, 0.5]})) == [
        "space.lr: [0.1, 0.5] is a list of two choices; "
        "for all numbers between them write lr = { low = 0.1, high = 0.5 }"
    ]
    for harmless in ([0.5, 0.1], [0.1, 0.2, 0.5], {"choices": [0.1, 0.5], "grid": True}, {"low": 0.1, "high": 0.5}):
        assert notes_on(read(space={"lr": harmless})) == []
    assert notes_on(read(space={"lr": LR, "batch_size": [16, 32]})) == []


def test_a_space_in_which_little_fits_and_a_grid_with_refused_cells_get_notes():
    (note,) = notes_on(read(space={"lr": LR, "epochs": {"low": 1, "high": 100}}, fixed={"milestones": [90]}))
    assert note.startswith("space: the trainer's configuration accepts ")
    assert "of 200 random configurations" in note
    assert "The commonest reason: milestones [90] are not before the last epoch" in note
    (note,) = notes_on(
        read(
            samplers=["grid"],
            space={"lr": {**LR, "grid": 1}, "epochs": {"low": 5, "high": 20, "grid": [5, 20]}},
            fixed={"milestones": [9]},
        )
    )
    assert note == (
        "space: 1 of the grid's 2 cells are left out, because the trainer's configuration refuses them: "
        "milestones [9] are not before the last epoch, 5"
    )
