"""What a command said and what it left in the database."""

import subprocess

import optuna

from hpo.database.storage import Storage


def trials_of(storage: Storage, study: str) -> list[optuna.trial.FrozenTrial]:
    trials = storage.get_all_trials(storage.get_study_id_from_name(study))
    storage.engine.dispose()
    return trials


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command that failed says on standard error, which is a line."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
