"""Imports finished trials of elsewhere as knowledge: what ``hpo import`` and ``hpo launch --import`` do.

A trial is taken over if it is a point of the experiment's space that was trained as the experiment would train it: its
value belongs to exactly that configuration. What does not fit is left out and counted. It costs no budget and is
nobody's result; see :mod:`hpo.database.imported`.
"""

import collections
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from hpo.database import imported
from hpo.database.imported import ImportedTrial
from hpo.database.storage import Storage
from hpo.database.trial_writes import execute
from hpo.errors import ExperimentError, HPOError, UsageError
from hpo.experiment.experiment import Experiment, experiment_names, load_experiment
from hpo.experiment.import_csv import read_rows
from hpo.experiment.results import given_of
from hpo.experiment.starts import comparable_experiment, known_values
from hpo.search.observed_space import ObservedSpace, space_of
from hpo.search.space import Space
from hpo.search.transfer import fitting
from hpo.studyfile.configuration import first_difference, merge
from hpo.studyfile.model import StudyFile
from hpo.trainers.errors import Infeasible
from hpo.trainers.registry import TRAINERS


@dataclass(frozen=True)
class Found:
    """A finished trial of elsewhere, before it is known to fit.

    Attributes:
        given: its configuration as it was given to the trainer.
        known: what the parameters of the new space are in it, as far as that is known.
    """

    content: str
    state: imported.State
    value: float | None
    given: dict[str, Any]
    known: dict[str, Any]


@dataclass(frozen=True)
class Import:
    """What of a source fits an experiment.

    Attributes:
        left_out: reason -> number of trials that do not fit for it.
    """

    source: str
    trials: tuple[ImportedTrial, ...]
    left_out: dict[str, int]

    @property
    def num_found(self) -> int:
        return len(self.trials) + sum(self.left_out.values())


def read_import(storage: Storage, study_file: StudyFile, source: str) -> Import:
    """Reads a CSV file or an earlier experiment; nothing is written.

    Raises:
        UsageError: for a CSV with mistakes, an experiment that measures something else, an experiment of which no
            sampler can learn from imported trials.
        ExperimentError: if there is no such experiment, or nothing of it fits.
    """
    if TRAINERS[study_file.trainer].suggests:
        study_file = study_file.model_copy(update={"space": _space_of_objective(storage, study_file)})
    if not any(sampler.takes_imported for sampler in study_file.samplers):
        labels = ", ".join(sampler.label for sampler in study_file.samplers)
        raise UsageError(f"import: {labels} learns nothing from imported trials; expected a sampler such as tpe")
    if source.lower().endswith((".csv", ".tsv", ".txt")) or Path(source).is_file():
        found, left_out = _of_csv(study_file, source)
    else:
        found, left_out = _of_experiment(storage, study_file, source), {}
    read = _fitted(study_file, source, found, left_out)
    if not read.num_found:
        raise ExperimentError(f"import: {source!r} has no finished trial")
    if not read.trials:
        raise ExperimentError(f"import: no trial of {source!r} fits {study_file.name!r}: {reasons(read)}")
    return read


def write_import(experiment: Experiment, read: Import) -> str:
    """Writes what was read into each study whose sampler learns from it; returns a line on it."""
    added = 0
    with experiment.storage.engine.begin() as connection:
        for study in experiment.studies:
            if study.sampler.takes_imported:
                added = max(added, imported.add(connection, study.study_id, read.trials))
    labels = dict.fromkeys(study.sampler.label for study in experiment.studies if study.sampler.takes_imported)
    trials = "1 finished trial" if added == 1 else f"{added} finished trials"
    line = f"{trials} of {read.source} imported into {experiment.name}, known to {', '.join(labels)}"
    if (known := len(read.trials) - added) > 0:
        line += f"; {known} are there already"
    return line if not read.left_out else f"{line}; left out: {reasons(read)}"


def reasons(read: Import) -> str:
    """How many trials were left out for which reason, the commonest first."""
    by_number = sorted(read.left_out.items(), key=lambda item: -item[1])
    return ", ".join(f"{number} because {reason}" for reason, number in by_number)


def _space_of_objective(storage: Storage, study_file: StudyFile) -> Space:
    """The parameters that an objective has suggested in every finished trial of its experiment.

    Raises:
        UsageError: if that does not say what trials of elsewhere must have.
    """
    name = study_file.name
    observed = ObservedSpace()
    if name in experiment_names(storage):
        observed = _observed(load_experiment(storage, name))
    like = "hpo launch --like NAME tries an earlier experiment's best configuration first"
    if not observed.distributions:
        raise UsageError(
            f"import: an objective's parameters are known from its finished trials only, and {name!r} has none; launch "
            f"it with a few trials, import then, and launch it again with more; {like}"
        )
    space = observed.space()
    if space.has_others:
        others = ", ".join(sorted(observed.distributions.keys() - space.shared.keys()))
        raise UsageError(
            f"import: the objective of {name!r} suggests {others} in some trials only, or in different ranges, so it "
            f"is not known which trials of elsewhere fit; let it suggest the same in every trial; {like}"
        )
    return space_of(space.shared)


def _observed(experiment: Experiment) -> ObservedSpace:
    observed = ObservedSpace()
    for study in experiment.studies:
        with experiment.storage.engine.connect() as connection:
            ours = {row[0] for row in execute(connection, OURS, s=study.study_id)}
        finished = experiment.storage.read_trials(study.study_id, (TrialState.COMPLETE, TrialState.PRUNED), set(), -1)
        observed.observe(trial for trial in finished if trial._trial_id in ours)
    return observed


def imported_space(experiment: Experiment) -> Space:
    """The space whose points imported trials are: the study file's, or what an objective has suggested."""
    if not TRAINERS[experiment.study_file.trainer].suggests:
        return experiment.study_file.space
    return space_of(_observed(experiment).distributions)


def imported_trials(experiment: Experiment) -> dict[int, Sequence[ImportedTrial]]:
    """Study id -> its imported trials."""
    with experiment.storage.engine.connect() as connection:
        counted = imported.count(connection, experiment.study_ids)
        return {study_id: imported.of_study(connection, study_id) for study_id in counted}


def _of_csv(study_file: StudyFile, source: str) -> tuple[list[Found], dict[str, int]]:
    rows, left_out = read_rows(Path(source), study_file)
    fields, fixed = study_file.fields, study_file.fixed
    found = [Found(row.content, row.state, row.value, merge(fields, fixed, row.values), row.values) for row in rows]
    return found, dict(left_out)


OURS = """
SELECT trial_id FROM hpo_trials WHERE study_id = :s AND NOT retried AND NOT infeasible
"""


def _of_experiment(storage: Storage, study_file: StudyFile, name: str) -> list[Found]:
    """The finished trials of an earlier experiment, and those that it has imported itself."""
    earlier = comparable_experiment(storage, study_file, name, "import")
    if earlier.content.get("value", "last") != study_file.value:
        raise UsageError(
            f"import: a trial's value in {name!r} is that of its {earlier.content.get('value', 'last')} epoch, and in "
            f"{study_file.name!r} of its {study_file.value} one (the key value); expected the same"
        )
    if earlier.content.get("command") != study_file.command:
        raise UsageError(
            f"import: the command of {name!r} is {shlex.join(earlier.content['command'])}, and that of "
            f"{study_file.name!r} is {shlex.join(study_file.command or ())}: the values may be those of another "
            "training; --like tries its best configuration, and a CSV file can be imported all the same"
        )
    found: list[Found] = []
    known: dict[str, Found] = {}
    for study in earlier.studies:
        with storage.engine.connect() as connection:
            ours = {row[0] for row in execute(connection, OURS, s=study.study_id)}
            for trial in imported.of_study(connection, study.study_id):
                given = merge(study_file.fields, earlier.content.get("fixed") or {}, trial.params)
                values = known_values(study_file, study_file.space, given)
                known[trial.content] = Found(trial.content, trial.state, trial.value, given, values)
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        for frozen in storage.read_trials(study.study_id, finished, set(), -1):
            if frozen._trial_id in ours and (one := _of_trial(study_file, frozen, earlier, study.key)) is not None:
                found.append(one)
    return [*found, *known.values()]


def _of_trial(study_file: StudyFile, trial: FrozenTrial, earlier: Experiment, key: str) -> Found | None:
    """A finished trial; None for one without a usable value. One that diverged counts as pruned."""
    value = trial.values[0] if trial.values else None
    is_complete = trial.state is TrialState.COMPLETE and value is not None and math.isfinite(value)
    given = given_of(earlier.content, trial.user_attrs)
    if not given and not trial.params:
        return None
    value = value if value is not None and math.isfinite(value) else None
    known = known_values(study_file, study_file.space, given)
    return Found(f"{key}/{trial.number}", "complete" if is_complete else "pruned", value, given, known)


def _fitted(study_file: StudyFile, source: str, found: Iterable[Found], left_out: dict[str, int]) -> Import:
    """Those that are points of the study file's space, with the reasons of the others."""
    trials: dict[str, ImportedTrial] = {}
    counted = collections.Counter(left_out)
    for trial in found:
        params, reason = fitting(study_file.space, trial.known)
        reason = reason or _another_training(study_file, params, trial.given)
        if reason is not None:
            counted[reason] += 1
        elif trial.content in trials:
            counted["it is there twice"] += 1
        else:
            trials[trial.content] = ImportedTrial(trial.content, trial.state, trial.value, params, source)
    return Import(source, tuple(trials.values()), dict(counted))


def _another_training(study_file: StudyFile, params: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """Why the experiment would train other than the trial did, although its parameters fit; None if it would not."""
    merged = study_file.merge(params)
    # What only new experiments fix (where random numbers come from) makes no other training.
    fixes_anew = TRAINERS[study_file.trainer].fixes_anew
    anew = {} if fixes_anew is None else fixes_anew({*merged, *given})
    try:
        here = study_file.configure({**merged, **anew})
        there = study_file.configure({**given, **anew})
    except Infeasible:
        return "the configuration is infeasible"
    except HPOError:
        return "the trainer refuses its configuration"
    where = first_difference(there, here)
    return None if where is None else f"{where} has another value there than this file trains with"
