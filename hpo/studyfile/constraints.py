"""What must fit together in a study file whose keys are right one by one: grid, budget, epochs, samplers, pruner."""

from collections.abc import Sequence

from hpo.search.context import Unmet
from hpo.search.sampler_registry import SamplerSpec
from hpo.search.space import Space
from hpo.studyfile.model import StudyFile
from hpo.studyfile.validation import Mistakes, toml_path
from hpo.trainers.registry import TRAINERS


def check_samplers(samplers: Sequence[SamplerSpec], space: Space, mistakes: Mistakes) -> bool:
    """Adds what the samplers need of the space; returns whether the cells of those that have cells can be listed."""
    sound = True
    for index, sampler in enumerate(samplers):
        unmet = sampler.entry.needs(sampler.options, space)
        _add(unmet, ("samplers", index), mistakes)
        sound = sound and not (unmet and sampler.entry.cells is not None)
    return sound


def check_budget(study_file: StudyFile, mistakes: Mistakes) -> None:
    """Budgets against the epochs of a trial, the configurations to try first and the size of the grid."""
    budget, most = study_file.budget, study_file.epochs_per_trial()
    if budget.epochs is not None and most is None:
        mistakes.add(
            "budget.epochs", "the trainer's configuration has no field epochs to count by; expected { trials = N }"
        )
    elif budget.epochs is not None and most is not None and budget.epochs < most:
        seeds = f", {study_file.num_seeds} seeds of {most // study_file.num_seeds}" if study_file.num_seeds > 1 else ""
        what = f"{budget.epochs} is less than one trial may take{seeds}; expected at least {most}"
        mistakes.add("budget.epochs", what)
    num_first = len(study_file.try_first)
    if budget.trials is not None and num_first > budget.trials:
        what = f"{budget.trials} is less than the {num_first} configurations of try_first; expected at least as many"
        mistakes.add("budget.trials", what)
    if study_file.stop_at_target and study_file.target is None:
        mistakes.add("stop_at_target", "there is no target to stop at; expected target = a value of the metric")
    if study_file.portfolio and TRAINERS[study_file.trainer].portfolio is None:
        having = ", ".join(name for name, entry in TRAINERS.items() if entry.portfolio is not None)
        what = f"the trainer {study_file.trainer!r} has none; {having or 'no trainer here'} has one"
        mistakes.add("portfolio", f"{what}; like = [...] takes the best of earlier experiments")
    sizes = [len(cells) for sampler in study_file.samplers if (cells := study_file.feasible_cells(sampler)) is not None]
    if sizes:
        num_cells = max(sizes)
        if budget.trials is not None and num_cells > budget.trials:
            what = f"{budget.trials} is less than the grid's {num_cells} cells"
            mistakes.add("budget.trials", f"{what}; expected at least {num_cells}, or fewer grid values")
        elif budget.epochs is not None and most is not None and num_cells * most > budget.epochs:
            what = f"{budget.epochs} is less than the grid's {num_cells} cells of {most} epochs"
            mistakes.add("budget.epochs", f"{what}; expected at least {num_cells * most}, or fewer grid values")


def check_pruner(study_file: StudyFile, mistakes: Mistakes) -> None:
    """What the pruner needs of the study file."""
    _add(study_file.pruner.unmet(study_file.search_context()), ("pruner",), mistakes)


def _add(unmet: Sequence[Unmet], where: tuple[str | int, ...], mistakes: Mistakes) -> None:
    for need in unmet:
        path = need.path if need.path[:1] == ("space",) else (*where, *need.path)
        mistakes.add(toml_path(*path), need.text)
