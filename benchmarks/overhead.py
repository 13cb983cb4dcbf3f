"""What a trial costs beyond its training: 40 trials of 8 epochs of 50 ms sleep, 7 parameters, 2 workers, Postgres.

Ours (a generator, an Optuna objective, a program) and plain Optuna (TPE, ASHA consulted at every epoch) on the same
server in the same run. A worker's span is from the start of its first trial to the end of its last; what is in it
beyond the sleep, divided by the trials, is the overhead. What the program's own start and end cost is measured by
running it alone, taken off its row and shown beside it.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import optuna

import hpo
from benchmarks.overhead_objective import suggest
from benchmarks.sleeping import SPACE
from hpo.launchers.progress import PlainProgress
from hpo.settings import Settings

STUDY = """
name = "overhead"
trainer = "sleeping"
metric = "value"
samplers = ["tpe"]
budget = {{ trials = {trials} }}
pruner = {{ name = "asha", min_epochs = 1, reduction_factor = 3 }}
[fixed]
epochs = {epochs}
epoch_seconds = {seconds}
constant = true
"""


OBJECTIVE = """
name = "overhead-objective"
trainer = "benchmarks.overhead_objective:objective"
metric = "value"
direction = "maximize"
samplers = ["tpe"]
budget = {{ trials = {trials} }}
pruner = {{ name = "asha", min_epochs = 1, reduction_factor = 3 }}
"""

PROGRAM = """
name = "overhead-program"
trainer = "program"
command = ["{{python}}", "-S", "-c", {source}]
args = "flags"
metric = "value"
direction = "maximize"
samplers = ["tpe"]
budget = {{ trials = {trials} }}
pruner = {{ name = "asha", min_epochs = 1, reduction_factor = 3 }}
"""

PROGRAM_SOURCE = """
import time
for epoch in range(1, {epochs} + 1):
    time.sleep({seconds})
    print('{{{{"value": 0.5, "epoch": %d}}}}' % epoch, flush=True)
"""


def overhead_ms(study: optuna.Study, epochs: int, seconds: float) -> tuple[float, int]:
    """Milliseconds a trial beyond its sleep, and how many trials ran."""
    spans: dict[str, list[datetime.datetime]] = defaultdict(list)
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        spans[trial.user_attrs["worker"]] += [trial.datetime_start, trial.datetime_complete]
    busy = sum((max(times) - min(times)).total_seconds() for times in spans.values())
    slept = sum(len(trial.intermediate_values) for trial in trials) * seconds
    return 1000 * (busy - slept) / len(trials), len(trials)


def plain_worker(address: str, num_trials: int, epochs: int, seconds: float, study_name: str = "plain") -> None:
    """A worker of plain Optuna's, as its documentation has it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=study_name,
        storage=address,
        sampler=optuna.samplers.TPESampler(),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("worker", str(os.getpid()))
        suggest(trial)
        for epoch in range(1, epochs + 1):
            time.sleep(seconds)
            trial.report(0.5, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return 0.5

    callback = optuna.study.MaxTrialsCallback(num_trials, states=None)
    study.optimize(objective, callbacks=[callback])


def program_seconds(epochs: int, seconds: float) -> float:
    """How long the program takes beyond its sleep if it runs by itself; the median of 10."""
    command = [sys.executable, "-S", "-c", _program_source(epochs, seconds).replace("{{", "{").replace("}}", "}")]
    times = []
    for _ in range(10):
        started = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.monotonic() - started - epochs * seconds)
    return statistics.median(times)


def _program_source(epochs: int, seconds: float) -> str:
    return PROGRAM_SOURCE.format(epochs=epochs, seconds=seconds)


def measure(num_trials: int, epochs: int, seconds: float, workers: int) -> list[tuple[str, float, int]]:
    """(who, overhead in ms, trials that ran) of ours and plain Optuna's."""
    rows = []
    own_start = 1000 * program_seconds(epochs, seconds)
    os.environ["OVERHEAD_EPOCHS"], os.environ["OVERHEAD_SECONDS"] = str(epochs), str(seconds)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), trainers="benchmarks.sleeping,benchmarks.overhead_objective:objective")
        source = json.dumps(_program_source(epochs, seconds))
        files = {
            "generator": STUDY.format(trials=num_trials, epochs=epochs, seconds=seconds) + SPACE,
            "objective": OBJECTIVE.format(trials=num_trials),
            "program": PROGRAM.format(trials=num_trials, source=source) + SPACE,
        }
        for kind, text in files.items():
            file = Path(folder) / f"{kind}.toml"
            file.write_text(text)
            loaded = hpo.launch(file, settings=settings, workers=workers, progress=PlainProgress(sys.stderr))
            milliseconds, ran = overhead_ms(next(iter(loaded.studies.values())), epochs, seconds)
            if kind == "program":
                rows.append(("a program alone", own_start, 10))
                milliseconds -= own_start
            rows.append((f"hpo, {kind}", milliseconds, ran))
        address = loaded._experiment.storage.secret_address
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        optuna.create_study(study_name="plain", storage=address)
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=plain_worker, args=(address, num_trials, epochs, seconds)) for _ in range(workers)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        plain = optuna.load_study(study_name="plain", storage=address)
        rows.append(("plain Optuna", *overhead_ms(plain, epochs, seconds)))
        loaded._experiment.storage.engine.dispose()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.05, help="of an epoch")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rows = measure(options.trials, options.epochs, options.seconds, options.workers)
    print(f"{'':16} {'ms a trial':>10} {'trials':>7}   (budget {options.trials}, {options.workers} workers)")
    for name, milliseconds, ran in rows:
        print(f"{name:16} {milliseconds:10.1f} {ran:7}")
    help_time = min(_seconds("--help") for _ in range(5))
    print(f"hpo --help: {help_time:.2f} s")


def _seconds(*arguments: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "hpo", *arguments], check=True, capture_output=True)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
