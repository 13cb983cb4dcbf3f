"""What a study file with an Optuna objective as its trainer may leave out, and what it must not have.

The objective suggests its parameters itself, so there is no space; its value is the number that it returns.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.errors import StudyFileError
from hpo.search.sampler_registry import SamplerSpec
from hpo.studyfile.validation import Mistakes, toml_path
from hpo.trainers.errors import TrainerError
from hpo.trainers.objective_loading import OWN_STUDIES, is_objective_name, load_objective, trainer_name
from hpo.trainers.registry import TRAINERS


def with_objective(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Loads the objective that a person's study file names, as ``module:function`` or ``script.py:function``.

    Only for a file that a person names: what the database holds is never imported. Returns the content with the name
    that the objective has in the table of trainers.

    Raises:
        StudyFileError: if it cannot be loaded.
    """
    spec = content.get("trainer")
    if not isinstance(spec, str) or spec in TRAINERS or not is_objective_name(spec):
        return content
    if trainer_name(spec) in TRAINERS:
        return {**content, "trainer": trainer_name(spec)}
    module, _, function = spec.rpartition(":")
    script = module if module.endswith(".py") else f"{module.replace('.', '/')}.py"
    beside = path.parent / script
    spec = f"{beside}:{function}" if beside.is_file() else spec
    try:
        return {**content, "trainer": load_objective(spec).name}
    except TrainerError as error:
        raise StudyFileError(str(path), [f"trainer: {error}"]) from error


def with_defaults_of_objective(content: dict[str, Any]) -> dict[str, Any]:
    """The content with the metric and the direction that an objective's own script says, if the file does not."""
    name = content.get("trainer")
    if not isinstance(name, str) or name not in TRAINERS or not TRAINERS[name].suggests:
        return content
    own = OWN_STUDIES.get(name)
    defaults: dict[str, Any] = {"metric": (own and own.metric) or "value"}
    if own is not None:
        defaults["direction"] = own.direction
    return {**defaults, **content}


def check_objective(content: Mapping[str, Any], samplers: Sequence[SamplerSpec], mistakes: Mistakes) -> bool:
    """Adds what a study file with an objective must not have; returns whether there was nothing."""
    before = len(mistakes)
    if content.get("space"):
        mistakes.add(
            "space", "an objective suggests its own parameters; leave [space] out ([fixed] gives a parameter one value)"
        )
    if content.get("forbidden"):
        mistakes.add("forbidden", "an objective suggests its own parameters; raise hpo.Infeasible in it instead")
    for index, sampler in enumerate(samplers):
        if sampler.entry.cells is not None:
            mistakes.add(
                toml_path("samplers", index),
                f"{sampler.name} search lists its configurations before the search, and an objective shows its "
                "parameters only while it runs; expected another sampler",
            )
    budget = content.get("budget")
    if budget is None and not content.get("fixed"):
        mistakes.add("budget", "missing; expected { trials = N }")
    elif isinstance(budget, Mapping) and "epochs" in budget:
        mistakes.add("budget.epochs", "the number of an objective's reports is not known; expected { trials = N }")
    if content.get("seeds_per_trial") not in (None, 1):
        mistakes.add(
            "seeds_per_trial",
            "an objective suggests its parameters while it runs, so one call of it is one trial; train with several "
            "seeds inside of it and return the mean, or make it a trainer (a generator or a program)",
        )
    if content.get("value", "last") != "last":
        mistakes.add("value", "an objective returns its value; leave this out")
    return len(mistakes) == before
