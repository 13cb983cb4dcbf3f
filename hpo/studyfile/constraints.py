"""What must fit together in a study file whose keys are right one by one: grid, budget, epochs, samplers, pruner."""

from collections.abc import Mapping
from typing import Any

from hpo.search.pruner_registry import HyperbandOptions
from hpo.search.space import Categorical, GridTooLargeError, Space
from hpo.studyfile.model import StudyFile
from hpo.studyfile.validation import Mistakes, toml_path


def check_grid(space: Space, mistakes: Mistakes) -> bool:
    """Whether grid search knows its cells: something varies, not too much, and all else has a value."""
    before = len(mistakes)
    if space.parameters and not space.gridded:
        mistakes.add(
            "space", "grid search has nothing to vary; give grid = [values] or a number of points to a parameter"
        )
    for name, parameter in space.parameters.items():
        if parameter.grid is None and name not in space.base:
            mistakes.add(
                toml_path("space", name),
                "grid search needs a value for it; give it grid values, or its value in [fixed]",
            )
    try:
        space.size()
    except GridTooLargeError as error:
        mistakes.add("space", f"{error}; expected fewer grid values")
    return len(mistakes) == before


def check_budget(study_file: StudyFile, mistakes: Mistakes) -> None:
    """Budgets against the number of epochs of a trial and the size of the grid."""
    budget, most = study_file.budget, study_file.max_epochs()
    if budget.epochs is not None and most is None:
        mistakes.add(
            "budget.epochs", "the trainer's configuration has no field epochs to count by; expected { trials = N }"
        )
    elif budget.epochs is not None and most is not None and budget.epochs < most:
        what = f"{budget.epochs} is less than one trial may take; expected at least {most}"
        mistakes.add("budget.epochs", what)
    if any(sampler.name == "grid" for sampler in study_file.samplers):
        cells = study_file.space.size() or 1
        if budget.trials is not None and cells > budget.trials:
            what = f"{budget.trials} is less than the grid's {cells} cells"
            mistakes.add("budget.trials", f"{what}; expected at least {cells}, or fewer grid values")
        elif budget.epochs is not None and most is not None and cells * most > budget.epochs:
            what = f"{budget.epochs} is less than the grid's {cells} cells of {most} epochs"
            mistakes.add("budget.epochs", f"{what}; expected at least {cells * most}, or fewer grid values")


def check_needs(study_file: StudyFile, mistakes: Mistakes) -> None:
    """What samplers and pruners need of the space."""
    for index, sampler in enumerate(study_file.samplers):
        numbers = [n for n, p in study_file.space.parameters.items() if not isinstance(p, Categorical)]
        free = [name for name in numbers if name in study_file.space.unconditional]
        if sampler.name == "cmaes" and not free:
            what = "cmaes moves numbers without conditions, and the space has none; expected another sampler"
            mistakes.add(toml_path("samplers", index), what)
    spec: Mapping[str, Any] | None = {"name": study_file.pruner.name, **study_file.pruner.options}
    path = "pruner"
    while spec is not None:
        if spec["name"] == "hyperband":
            options = HyperbandOptions.model_validate({k: v for k, v in spec.items() if k != "name"})
            most = options.max_epochs or study_file.max_epochs()
            if most is None:
                what = "missing; the trainer's configuration has no field epochs, so give a trial's most epochs"
                mistakes.add(f"{path}.max_epochs", what)
            elif options.min_epochs > most:
                what = f"{options.min_epochs} is more than the {most} epochs of a trial; expected at most {most}"
                mistakes.add(f"{path}.min_epochs", what)
        spec, path = spec.get("wrapped"), f"{path}.wrapped"
