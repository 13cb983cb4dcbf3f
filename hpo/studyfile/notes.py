"""What a person should know about a study file that has no mistakes: ``hpo launch`` prints it before it starts."""

import random
from collections import Counter

from hpo.search.pruned_budget import expected
from hpo.search.space import Categorical
from hpo.studyfile.config_fields import OpenFields
from hpo.studyfile.config_tree import can_refuse
from hpo.studyfile.model import StudyFile
from hpo.studyfile.repeats import repeats_note
from hpo.studyfile.sample_configs import MOST_DRAWS
from hpo.studyfile.validation import shown

MUCH_OF_IT = 0.7
"""A share of the epochs of whole trainings from which on a budget in trials is about what it says."""

FEW_FIT = 0.2
"""A share of the space below which it is worth a note that few configurations fit."""


def notes_on(study_file: StudyFile) -> list[str]:
    """Notes, each one line: a list that looks like a range, refused cells of a grid, a space in which little fits,
    what a number of trials comes to under a pruner, whether the repeats can give a verdict."""
    about_repeats = repeats_note(len(study_file.samplers), study_file.repeats)
    return [
        *_lists_like_ranges(study_file),
        *_refused_cells(study_file),
        *_share_that_fits(study_file),
        *_trials_under_a_pruner(study_file),
        *([] if about_repeats is None else [about_repeats]),
    ]


def _trials_under_a_pruner(study_file: StudyFile) -> list[str]:
    trials, most = study_file.budget.trials, study_file.max_epochs()
    draws = any(sampler.entry.cells is None for sampler in study_file.samplers)
    if trials is None or most is None or most < 2 or not draws:
        return []
    found, seeds = expected(study_file.pruner, trials, most), study_file.num_seeds
    if found is None or found.epochs > MUCH_OF_IT * trials * most:
        return []
    whole = trials * most * seeds
    return [
        f"budget: with {study_file.pruner.name}, {trials} trials train about {found.epochs * seeds:.0f} of "
        f"{whole} epochs, and about {found.complete:.0f} of them to the end; budget = {{ epochs = N }} "
        f"says what is trained, such as {{ epochs = {whole} }} for as much as {trials} whole trainings"
    ]


def _lists_like_ranges(study_file: StudyFile) -> list[str]:
    notes = []
    for name, parameter in study_file.space.parameters.items():
        if not isinstance(parameter, Categorical) or len(parameter.choices) != 2 or parameter.grid is not None:
            continue
        low, high = parameter.choices
        if isinstance(low, bool | str | None) or isinstance(high, bool | str | None) or not low < high:
            continue
        # Two whole numbers are mostly meant as such; from a negative one to a positive one they hardly are.
        if not (isinstance(low, float) and isinstance(high, float)) and not low < 0 < high:
            continue
        if study_file.fields.literals(name) is None:
            notes.append(
                f"space.{name}: [{shown(low)}, {shown(high)}] is a list of two choices; for all numbers between them "
                f"write {name} = {{ low = {shown(low)}, high = {shown(high)} }}"
            )
    return notes


def _refused_cells(study_file: StudyFile) -> list[str]:
    for sampler in study_file.samplers:
        cells, fitting = sampler.entry.cells and sampler.cells(study_file.space), study_file.feasible_cells(sampler)
        if cells is None or fitting is None or len(fitting) == len(cells):
            continue
        reason = next((why for cell in cells if (why := study_file.refusal(cell)) is not None), "")
        num_refused = len(cells) - len(fitting)
        return [
            f"space: {num_refused} of the grid's {len(cells)} cells are left out, because the trainer's configuration "
            f"refuses them: {reason}"
        ]
    return []


def _share_that_fits(study_file: StudyFile) -> list[str]:
    fields, space = study_file.fields, study_file.space
    draws = any(sampler.entry.cells is None for sampler in study_file.samplers)
    if isinstance(fields, OpenFields) or not draws or not space.parameters or not can_refuse(fields.config):
        return []
    rng = random.Random(0)
    reasons = [study_file.refusal(space.draw(rng)) for _ in range(MOST_DRAWS)]
    refused = Counter(reason for reason in reasons if reason is not None)
    num_fitting = MOST_DRAWS - refused.total()
    if num_fitting >= FEW_FIT * MOST_DRAWS:
        return []
    return [
        f"space: the trainer's configuration accepts {num_fitting} of {MOST_DRAWS} random configurations "
        f"({100 * num_fitting / MOST_DRAWS:.1f} %); the others are drawn again. The commonest reason: "
        f"{refused.most_common(1)[0][0]}"
    ]
