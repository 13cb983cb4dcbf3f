"""``hpo enqueue``: a configuration of a person's, as a trial of the budget, with the checks of a study file.

What only the trainer's code can check is checked where that is loaded, and by the worker in any case.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from hpo.database import steering, workers
from hpo.database.attempts import insert_trial
from hpo.database.study_budget import read_budgets
from hpo.database.trial_writes import execute, write_attributes
from hpo.errors import ExperimentError, UsageError, near_miss
from hpo.experiment.experiment import Experiment, StudyHandle
from hpo.experiment.steering import Steered, person, shown_values
from hpo.search.enqueued import mistakes_of
from hpo.search.forbidden import Forbidden
from hpo.search.optuna_internals import FIXED_PARAMS
from hpo.search.space import Float, Space
from hpo.trainers.registry import TRAINERS

OBSERVED = """
SELECT DISTINCT p.param_name FROM trial_params p JOIN trials t USING (trial_id) WHERE t.study_id = ANY(:ids)
"""
SAME = """
SELECT 1 FROM trials t JOIN trial_system_attributes a USING (trial_id) LEFT JOIN hpo_trials h USING (trial_id)
WHERE t.study_id = :s AND t.state = 'WAITING' AND h.trial_id IS NULL AND a.key = :key AND a.value_json = :value
"""


def parse_values(texts: Sequence[str]) -> dict[str, Any]:
    """``["lr=0.1", "optimizer=adam"]`` as values: numbers, ``true`` and ``false``, else text; quotes make a text.

    Raises:
        UsageError: for a text without ``=``, or a name that is given twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"{text!r} is refused; expected NAME=VALUE, such as lr=0.1")
        if name in values:
            raise UsageError(f"{name} is given twice")
        values[name] = _value(value.strip())
    if not values:
        raise UsageError("no value is given; expected NAME=VALUE, such as lr=0.1")
    return values


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip("'")
    is_plain = isinstance(value, str | int | float | bool)
    return value if is_plain and not (isinstance(value, float) and not math.isfinite(value)) else text


def space_of(experiment: Experiment) -> Space:
    """The space of the record, without the trainer's defaults."""
    content = experiment.content
    forbidden = tuple(Forbidden.from_table(table) for table in content.get("forbidden", ()))
    parameters = Space.from_table(content.get("space", {})).parameters
    return Space(parameters, content.get("fixed", {}), forbidden)


def check(
    experiment: Experiment, values: Mapping[str, Any], *, sampler: str | None = None, repeat: int | None = None
) -> tuple[dict[str, Any], list[StudyHandle]]:
    """The values as the space has them, and the studies that take them.

    Raises:
        UsageError: for names and values that the space does not have, a combination that is forbidden or that the
            trainer refuses if its code is loaded, or studies that there are not.
    """
    studies = _studies(experiment, sampler, repeat)
    space = space_of(experiment)
    if not space.parameters:
        return dict(values), _checked_names(experiment, values, studies)
    given = {name: _as_choice(space, name, value) for name, value in values.items()}
    mistakes = mistakes_of(space, given)
    if not mistakes and experiment.trainer in TRAINERS and all(name in given for name in space.parameters):
        refusal = experiment.study_file.refusal(given)
        mistakes = [] if refusal is None else [f"the trainer refuses {shown_values(given)}: {refusal}"]
    if mistakes:
        raise UsageError("\n".join(["the configuration is refused:", *(f"  {mistake}" for mistake in mistakes)]))
    return given, studies


def _as_choice(space: Space, name: str, value: Any) -> Any:
    """A whole number for a range of fractions is one of them; ``"64"`` for a choice 64 stays a text, and is refused."""
    parameter = space.parameters.get(name)
    if isinstance(parameter, Float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and parameter is not None:
        # What a shell or a form hands over is text: a choice that is written alike is meant.
        choices = [choice for choice in getattr(parameter, "choices", ()) if str(choice) == value]
        return choices[0] if len(choices) == 1 else value
    choices = [choice for choice in getattr(parameter, "choices", ()) if choice == value or str(choice) == str(value)]
    return choices[0] if len(choices) == 1 and not isinstance(value, bool) else value


def _studies(experiment: Experiment, sampler: str | None, repeat: int | None) -> list[StudyHandle]:
    labels = list(dict.fromkeys(study.sampler.label for study in experiment.studies))
    if sampler is not None and sampler not in labels:
        raise UsageError(
            f"the experiment {experiment.name!r} has no sampler {sampler!r}{near_miss(sampler, labels)}; "
            f"it has {', '.join(labels)}"
        )
    chosen = [
        study
        for study in experiment.studies
        if sampler in (None, study.sampler.label) and repeat in (None, study.repeat)
    ]
    if not chosen:
        raise UsageError(
            f"the experiment {experiment.name!r} has no repeat {repeat}; it has 0 to "
            f"{max(study.repeat for study in experiment.studies)}"
        )
    taking = [study for study in chosen if study.sampler.entry.cells is None]
    if not taking:
        raise UsageError("grid search trains its own cells and nothing else; no other sampler is there")
    return taking


def _checked_names(experiment: Experiment, values: Mapping[str, Any], studies: list[StudyHandle]) -> list[StudyHandle]:
    """An objective shows its parameters only while it runs: those of its trials are known."""
    with experiment.storage.engine.connect() as connection:
        known = set(execute(connection, OBSERVED, ids=experiment.study_ids).scalars())
    for name in values if known else ():
        if name not in known:
            raise UsageError(
                f"no trial of {experiment.name!r} has a parameter {name!r}{near_miss(name, known)}; "
                f"there are {', '.join(sorted(known))}"
            )
    return studies


def enqueue(
    experiment: Experiment,
    values: Mapping[str, Any],
    *,
    sampler: str | None = None,
    repeat: int | None = None,
    who: str | None = None,
    expected: int | None = None,
) -> Steered:
    """Has a configuration tried next, in each study that can take it; the other parameters are drawn.

    It is a trial of the budget. Grid search trains its own cells, so it takes none.

    Raises:
        UsageError: as :func:`check`.
        ExperimentError: if the budget is given out, or the same configuration waits already.
        SteeredMeanwhileError: as :func:`hpo.experiment.steering.stop`.
    """
    given, studies = check(experiment, values, sampler=sampler, repeat=repeat)
    with experiment.storage.engine.begin() as connection:
        steering.begin(connection, experiment.study_ids, expected)
        budgets = {budget.study_id: budget for budget in read_budgets(connection, experiment.study_ids)}
        text = json.dumps(given)
        free = [study for study in studies if _has_room(budgets.get(study.study_id))]
        if not free:
            raise ExperimentError(
                f"the budget of {experiment.name} is given out, so no trial can begin; make room first: "
                "hpo extend EXPERIMENT --trials +1"
            )
        new = [study for study in free if not _waits(connection, study.study_id, text)]
        if not new:
            raise ExperimentError(f"{shown_values(given)} waits already in {experiment.name}")
        for study in new:
            trial_id, _ = insert_trial(connection, study.study_id, "WAITING")
            write_attributes(connection, "trial_system_attributes", {trial_id: {FIXED_PARAMS: given}})
        places = ", ".join(f"{study.sampler.label}/{study.repeat}" for study in new)
        steering.note(
            connection, experiment.study_ids, who or person(), "enqueued", f"{shown_values(given)} in {places}"
        )
        alive = workers.num_alive(connection, experiment.study_ids)
    return Steered(f"enqueued {shown_values(given)} in {places}", alive, not alive)


def _has_room(budget: Any) -> bool:
    """Whether one more enqueued trial has a place in the budget beside those that wait for one."""
    if budget is None or not budget.has_capacity:
        return False
    return budget.num_lineages is None or budget.next_lineage + budget.enqueued < budget.num_lineages


def _waits(connection: sa.Connection, study_id: int, text: str) -> bool:
    return execute(connection, SAME, s=study_id, key=FIXED_PARAMS, value=text).first() is not None
