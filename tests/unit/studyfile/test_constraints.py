"""Mistakes that no key has by itself: conditions, whole configurations, grids against budgets."""

from collections.abc import Iterator

import pydantic
import pytest

from hpo.studyfile.budget import Budget
from hpo.studyfile.validation import Mistakes
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run
from tests.unit.study_files import ToyConfig, mistakes, read

LR = {"low": 1e-3, "high": 1.0}


def in_space(**parameters):
    """The mistakes of a space beside ``lr``."""
    return mistakes(space={"lr": LR, **parameters})


def test_conditions():
    scheduler = ["constant", "step"]

    def conditional(when, **others):
        return in_space(**{"scheduler": scheduler, **others, "step_size": {"low": 1, "high": 4, "when": when}})

    assert conditional({"scheduler": "stp"}) == [
        "space.step_size.when.scheduler: scheduler is never 'stp' (did you mean 'step'?); "
        "it is one of ['constant', 'step']"
    ]
    assert conditional({"scheduler": ["step", "cosine"]}) == [
        "space.step_size.when.scheduler: scheduler is never 'cosine'; it is one of ['constant', 'step']"
    ]
    assert conditional({"scheduler": []}) == [
        "space.step_size.when.scheduler: is empty; expected a value or a list of values"
    ]
    assert conditional({"depth": 9}, depth={"low": 1, "high": 3}) == [
        "space.step_size.when.depth: depth is never 9; it is a whole number from 1 to 3"
    ]
    assert conditional({"lr": 0.5}) == [
        "space.step_size.when.lr: lr is a range of real numbers, which never equals 0.5; name a list or a whole number"
    ]
    assert conditional({"gamma": 0.5}) == [
        "space.step_size.when.gamma: gamma is not in [space]; a condition names another searched parameter"
    ]


def test_cyclic_conditions():
    lines = in_space(
        width={"choices": [8, 16], "when": {"depth": 2}},
        depth={"choices": [1, 2], "when": {"width": 8}},
        gamma={"low": 0.1, "high": 0.5, "when": {"width": 8}},
    )
    assert lines == [
        "space.width.when: the conditions go round in a circle (width -> depth -> width); leave one of them out",
        "space.depth.when: the conditions go round in a circle (depth -> width -> depth); leave one of them out",
        "space.gamma.when: the conditions go round in a circle (width -> depth -> width); leave one of them out",
    ]


def test_conditions_that_exclude_each_other():
    lines = in_space(
        scheduler=["constant", "step"],
        depth={"low": 1, "high": 3, "when": {"scheduler": "step"}},
        width={"low": 1, "high": 3, "when": {"scheduler": "constant", "depth": 2}},
    )
    assert lines == ["space.width.when: the conditions of it and its parents exclude each other"]


def test_try_first():
    assert mistakes(try_first=[{"lr": 0.1}, {"lr": 2.0, "scheduler": "cosine", "betta": 1, "width": 0}]) == [
        "try_first[1].betta: unknown parameter 'betta' (did you mean 'beta'?)",
        "try_first[1].lr: 2.0 is outside the space; expected a number from 0.001 to 1.0",
        "try_first[1].scheduler: 'cosine' is outside the space; expected one of ['constant', 'step']",
        "try_first[1].width: 0 is refused; expected greater than or equal to 1",
    ]
    assert mistakes(try_first=[{"scheduler": "constant", "step_size": 2}]) == [
        "try_first[0].step_size: is not active with scheduler = 'constant'; "
        "leave it out, or give scheduler one of ['step']"
    ]


def test_whole_configurations():
    assert mistakes(fixed={"epochs": 8, "milestones": [4, 8]}) == [
        "fixed: milestones [8] are not before the last epoch, 8"
    ]
    assert mistakes(try_first=[{"milestones": [9]}]) == [
        "try_first[0]: milestones [9] are not before the last epoch, 8"
    ]
    assert mistakes(space={"lr": LR, "epochs": {"low": 2, "high": 4}}, fixed={"milestones": [5]}) == [
        "fixed: milestones [5] are not before the last epoch, 3",
        "space.epochs: with epochs = 2: milestones [5] are not before the last epoch, 2",
        "space.epochs: with epochs = 4: milestones [5] are not before the last epoch, 4",
    ]


def test_a_space_is_judged_by_whether_anything_fits_not_by_its_ends():
    assert read(space={"lr": LR, "epochs": {"low": 2, "high": 20}}, fixed={"milestones": [5]})
    assert read(
        space={
            "lr": LR,
            "scheduler": ["constant", "step"],
            "step_size": {"low": 1, "high": 9, "when": {"scheduler": "step"}},
        }
    )


def test_a_first_configuration_is_refused_if_no_completion_of_it_fits():
    space = {"lr": LR, "epochs": {"low": 2, "high": 20}}
    assert read(space=space, fixed={}, try_first=[{"milestones": [18]}])
    assert mistakes(space=space, fixed={}, try_first=[{"milestones": [25]}]) == [
        "try_first[0]: milestones [25] are not before the last epoch, 10"
    ]


def test_grids():
    lr, width = {**LR, "grid": [0.01, 0.1]}, {"low": 1, "high": 64, "grid": 7}
    grid = ["grid"]
    assert mistakes(samplers=grid, space={"lr": lr, "width": width}) == [
        "budget.trials: 12 is less than the grid's 14 cells; expected at least 14, or fewer grid values"
    ]
    assert mistakes(samplers=grid, space={"lr": lr, "width": width}, budget={"epochs": 100}) == [
        "budget.epochs: 100 is less than the grid's 14 cells of 8 epochs; expected at least 112, or fewer grid values"
    ]
    assert mistakes(samplers=grid) == [
        "space: grid search has nothing to vary; give grid = [values] or a number of points to a parameter",
        "space.lr: grid search needs a value for it; give it grid values, or its value in [fixed]",
    ]
    assert mistakes(samplers=grid, space={"lr": LR, "width": width}) == [
        "space.lr: grid search needs a value for it; give it grid values, or its value in [fixed]"
    ]
    assert mistakes(
        samplers=grid,
        space={"lr": lr, "depth": {"low": 1, "high": 3, "grid": 2}},
        fixed={"depth": 2, "epochs": 2, "milestones": [2]},
    ) == [
        "space: the trainer's configuration refuses each of the grid's 4 cells; "
        "the first one, lr = 0.01, depth = 1: milestones [2] are not before the last epoch, 2"
    ]
    cells = {"lr": lr, "epochs": {"low": 4, "high": 9, "grid": [4, 9]}, "milestones": ["60/120"]}
    assert mistakes(samplers=grid, space=cells)[0].startswith("space.milestones.choices[0]: '60/120' is refused")
    many = {name: {"low": 1, "high": 1000, "grid": 1000} for name in ("width", "step_size", "epochs")}
    assert mistakes(samplers=grid, fixed={"lr": 0.1}, space=many) == [
        "space: the grid has more than 1000000 cells; expected fewer grid values"
    ]


def test_a_grid_leaves_out_the_cells_that_the_configuration_refuses():
    grid = {
        "samplers": ["grid"],
        "fixed": {"lr": 0.1, "scheduler": "constant"},
        "space": {
            "scheduler": {"choices": ["constant", "step"], "grid": True},
            "step_size": {"low": 1, "high": 8, "grid": [4, 8]},
            "epochs": {"low": 5, "high": 20, "grid": [5, 20]},
        },
    }
    study_file = read(**grid, budget={"trials": 7})
    (sampler,) = study_file.samplers
    assert study_file.space.size() == 8
    assert study_file.budget_for(sampler) == Budget(trials=7)
    cells = study_file.feasible_cells(sampler)
    assert len(cells) == 7
    assert {"scheduler": "step", "step_size": 8, "epochs": 5} not in cells
    assert mistakes(**grid, budget={"trials": 6}) == [
        "budget.trials: 6 is less than the grid's 7 cells; expected at least 7, or fewer grid values"
    ]


def test_a_grid_of_which_no_cell_fits():
    (line,) = mistakes(
        samplers=["grid"],
        fixed={"lr": 0.1, "milestones": [30]},
        space={"epochs": {"low": 5, "high": 20, "grid": [5, 20]}},
    )
    assert line == (
        "space: the trainer's configuration refuses each of the grid's 2 cells; "
        "the first one, epochs = 5: milestones [30] are not before the last epoch, 5"
    )


def test_hyperband_and_epoch_budgets_need_epochs():
    bare = {"trainer": "bare", "metric": "loss", "fixed": {}, "space": {"x": [1.0, 2.0]}}
    assert mistakes(**bare, pruner="hyperband") == [
        "pruner.max_epochs: missing; the trainer's configuration has no field epochs, so give a trial's most epochs"
    ]
    assert mistakes(**bare, budget={"epochs": 5}) == [
        "budget.epochs: the trainer's configuration has no field epochs to count by; expected { trials = N }"
    ]


def test_discriminator_tags_are_not_in_paths():
    mistakes_found = Mistakes()
    data = {"lr": 1.0, "optimizer": {"kind": "adam", "eps": -1}}
    with pytest.raises(pydantic.ValidationError) as caught:
        ToyConfig.model_validate(data)
    assert caught.value.errors()[0]["loc"] == ("optimizer", "adam", "eps")
    mistakes_found.add_errors(caught.value, data, "fixed")
    assert mistakes_found.lines == ["fixed.optimizer.eps: -1 is refused; expected greater than 0"]


class MoodyConfig(Config):
    x: float = 0.0

    @pydantic.model_validator(mode="after")
    def _raise(self) -> "MoodyConfig":
        if self.x > 1:
            raise KeyError("its author has slipped")
        return self


@trainer("moody")
def moody(config: MoodyConfig, run: Run) -> Iterator[dict[str, float]]:
    """Its configuration's validator raises what pydantic does not expect."""
    yield {"loss": config.x}


def test_a_validator_that_raises_something_else_is_shown():
    assert mistakes(trainer="moody", metric="loss", fixed={}, space={"x": [2.0, 3.0]})[0] == (
        "fixed: the configuration's validator raised KeyError: 'its author has slipped'"
    )
    assert read(trainer="moody", metric="loss", fixed={}, space={"x": {"low": 0, "high": 2}})
