"""``hpo extend``: a larger budget for an experiment, without its study file and without its trainer.

The record of the experiment gets the larger budget, so a launch with the file of before goes on with it.
"""

import json
from collections.abc import Mapping
from typing import Any

import pydantic
import sqlalchemy as sa

from hpo.database import attributes, steering, workers
from hpo.database.trial_writes import execute
from hpo.errors import UsageError
from hpo.experiment import stored
from hpo.experiment.experiment import Experiment
from hpo.experiment.steering import Steered, person
from hpo.search.sampler_registry import SAMPLERS
from hpo.studyfile.budget import Budget

UPDATE = """
UPDATE hpo_studies SET num_lineages = coalesce(CAST(:trials AS integer), num_lineages),
  num_epochs = coalesce(CAST(:epochs AS integer), num_epochs),
  num_seconds = coalesce(CAST(:seconds AS float8), num_seconds) WHERE study_id = :s
"""


def check_extension(experiment: Experiment, wanted: Mapping[str, str]) -> Budget:
    """The larger budget of ``wanted``: unit -> the new number as text, or ``+N``.

    Raises:
        UsageError: for a unit that the budget does not have, a text that is no number, or no larger one.
    """
    return _extended(experiment.content, wanted)


def _extended(content: Mapping[str, Any], wanted: Mapping[str, str]) -> Budget:
    now = Budget(**content["budget"]).as_dict()
    options = " or ".join(f"--{unit.replace('_', '-')}" for unit in now)
    shown = ", ".join(f"{unit} = {_shown(count)}" for unit, count in now.items())
    if not wanted:
        raise UsageError(f"expected {options} with the new number, or +N; the budget is {shown}")
    extended = dict(now)
    for unit, text in wanted.items():
        name = f"--{unit.replace('_', '-')}"
        if unit not in now:
            raise UsageError(f"{name}: the budget of this experiment is {shown}; expected {options}")
        kind = int if unit in ("trials", "epochs") else float
        try:
            count = kind(text.removeprefix("+"))
        except ValueError:
            whole = "a whole number" if kind is int else "a number"
            raise UsageError(f"{name} {text!r} is refused; expected {whole}, or +N for so many more") from None
        extended[unit] = now[unit] + count if text.startswith("+") else count
        if not extended[unit] > now[unit]:
            raise UsageError(f"{name} {text} is not more than the {_shown(now[unit])} that it is; a budget only grows")
    try:
        return Budget(**extended)
    except pydantic.ValidationError as error:
        raise UsageError(f"the budget is refused: {error.errors()[0]['msg']}") from None


def extend(
    experiment: Experiment, wanted: Mapping[str, str], *, who: str | None = None, expected: int | None = None
) -> Steered:
    """Gives each search of the experiment the larger budget; grid search only a longer time.

    Args:
        wanted: ``trials``, ``epochs``, ``hours``, ``seconds``, ``gpu_hours`` -> the new number as text, or ``+N``.

    Raises:
        UsageError: as :func:`check_extension`.
        SteeredMeanwhileError: as :func:`hpo.experiment.steering.stop`.
    """
    with experiment.storage.engine.begin() as connection:
        steering.begin(connection, experiment.study_ids, expected)
        # Read under the lock: two persons who add N each add 2 N.
        rows = stored.study_rows(connection, experiment.name)
        content = rows[0][2][attributes.STUDY_FILE]
        before, budget = Budget(**content["budget"]), _extended(content, wanted)
        samplers = {entry["label"]: SAMPLERS[entry["name"]] for entry in content["samplers"]}
        for study_id, _, attrs in rows:
            entry = samplers.get(attrs.get(attributes.SAMPLER, ""))
            if entry is None:
                continue
            of_study = budget if entry.cells is not None else budget.times(entry.budget_factor)
            execute(
                connection,
                UPDATE,
                s=study_id,
                trials=None if entry.cells is not None else of_study.trials,
                epochs=None if entry.cells is not None else of_study.epochs,
                seconds=of_study.time,
            )
            _set_record(connection, study_id, {**attrs[attributes.STUDY_FILE], "budget": budget.as_dict()})
        detail = ", ".join(
            f"{unit} {_shown(before.as_dict()[unit])} to {_shown(count)}"
            for unit, count in budget.as_dict().items()
            if count != before.as_dict()[unit]
        )
        steering.note(connection, experiment.study_ids, who or person(), steering.EXTENDED, detail)
        alive = workers.num_alive(connection, experiment.study_ids)
    goes_on = "workers that are alive go on with it" if alive else "the next launch goes on with it"
    return Steered(f"the budget of each search of {experiment.name}: {detail}; {goes_on}", alive, not alive)


def _set_record(connection: sa.Connection, study_id: int, content: Mapping[str, Any]) -> None:
    query = "UPDATE study_user_attributes SET value_json = :v WHERE study_id = :s AND key = :k"
    execute(connection, query, v=json.dumps(content), s=study_id, k=attributes.STUDY_FILE)


def _shown(count: float) -> str:
    return f"{count:g}" if count < 1e6 else f"{count}"
