"""From `hpo launch` to the first trial's start, for a trainer without torch and for the classifier; medians of 5."""

import datetime
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sleeping import SPACE
from hpo.database.storage import open_storage

SLEEPING = (
    """
name = "start"
trainer = "sleeping"
metric = "value"
samplers = ["random"]
budget = { trials = 2 }
[fixed]
epochs = 1
"""
    + SPACE
)

DIGITS = """
name = "start"
trainer = "classifier"
metric = "val_accuracy"
samplers = ["random"]
budget = { trials = 2 }
[fixed]
dataset = "digits"
epochs = 1
batch_size = 64
[space]
lr = { low = 0.01, high = 0.1 }
"""


def seconds_to_first_trial(study: str) -> float:
    """Seconds from the command to the first trial's claim, on a home whose server has been made before."""
    with tempfile.TemporaryDirectory() as folder:
        open_storage(home=folder).engine.dispose()
        file = Path(folder) / "start.toml"
        file.write_text(study)
        command = [sys.executable, "-m", "hpo", "launch", str(file), "--workers", "1", "--home", folder]
        started = time.time()
        subprocess.run([*command, "--trainers", "benchmarks.sleeping"], check=True, capture_output=True)
        storage = open_storage(home=folder)
        trials = storage.get_all_trials(storage.get_study_id_from_name("start/random/0"))
        storage.engine.dispose()
        first = min(trial.datetime_start for trial in trials if trial.datetime_start)
        return (first - datetime.datetime.fromtimestamp(started)).total_seconds()


def main() -> None:
    for name, study in (("no torch", SLEEPING), ("classifier", DIGITS)):
        times = [seconds_to_first_trial(study) for _ in range(5)]
        print(f"{name:12} {statistics.median(times):5.2f} s to the first trial ({min(times):.2f} to {max(times):.2f})")


if __name__ == "__main__":
    main()
