"""Sums over ended trials, read step by step: the same as read at once, whatever ends in which order."""

import optuna
import pytest
import sqlalchemy as sa

from hpo.compare.load import Loader
from tests.searches import fill


def finish_running(storage, study_id, value):
    study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage)
    (running,) = [trial for trial in study.trials if trial.state.name == "RUNNING"]
    storage.set_trial_user_attr(running._trial_id, "seconds", 2.5)
    storage.set_trial_state_values(running._trial_id, optuna.trial.TrialState.COMPLETE, [value])


def begin_another(storage, study_id, lineage):
    trial_id = storage.create_new_trial(study_id)
    with storage.engine.begin() as connection:
        connection.execute(
            sa.text("INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt) VALUES (:t, :s, :l, 0)"),
            {"t": trial_id, "s": study_id, "l": lineage},
        )
    return trial_id


def sums(entries):
    return [
        (
            sorted(entry.ended.outcomes, key=lambda outcome: outcome.trial_id),
            round(entry.ended.seconds, 6),
            (entry.ended.began, entry.ended.ended, entry.ended.settled),
            entry.counts.key(),
        )
        for entry in entries
    ]


def test_what_is_read_step_by_step_is_what_is_read_at_once(storage):
    ids = fill(storage, "e", samplers=("random",), repeats=2, trials=20, finished=5)
    loader = Loader(storage)
    first = loader.entries("e")["e"]
    assert [len(entry.ended.outcomes) > 0 for entry in first] == [True, True]
    # A later trial ends before an earlier one: it is counted, and counted once when the earlier one has ended.
    later = begin_another(storage, ids[0], 6)
    storage.set_trial_state_values(later, optuna.trial.TrialState.COMPLETE, [0.97])
    step = loader.entries("e")["e"]
    assert sums(step) == sums(Loader(storage).entries("e")["e"])
    assert step[0].best == 0.97
    finish_running(storage, ids[0], 0.99)
    for value in (0.2, 0.3):
        trial_id = begin_another(storage, ids[1], 6 + int(10 * value))
        storage.set_trial_state_values(trial_id, optuna.trial.TrialState.COMPLETE, [value])
    step = loader.entries("e")["e"]
    assert sums(step) == sums(Loader(storage).entries("e")["e"])
    assert step[0].best == 0.99
    assert step[0].ended.seconds == pytest.approx(first[0].ended.seconds + 2.5)
    assert step[1].ended.began == first[1].ended.began
