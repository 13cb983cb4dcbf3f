"""A search on MNIST by the clock: worker-seconds for each trained epoch, ours and plain Optuna's in the same run.

24 trials of up to 4 epochs, ASHA, over lr, beta, two widths, weight decay and batch size, 2 workers. Plain Optuna
trains the same network the ordinary good way: tensors in memory, fp32, one thread a worker.

What an epoch costs depends on the batch size and widths, by a factor of ten between the ends of the space. So both
sides train one fixed list of configurations, in every run. What differs is which of them are pruned, and so the ratio
is that of several runs together. The updates that a search made are counted too, and the seconds of processor time,
which other processes on the machine change less.
"""

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

import hpo
from hpo.launchers.progress import PlainProgress
from hpo.settings import Settings

STUDY = """
name = "mnist-search"
trainer = "classifier"
metric = "val_accuracy"
samplers = ["random"]
budget = {{ trials = {trials} }}
seed = {seed}
pruner = {{ name = "asha", min_epochs = 1, reduction_factor = 3 }}
[fixed]
dataset = "mnist"
normalize = "unit"
epochs = {epochs}
[space]
lr = {{ low = 1e-3, high = 1.0, log = true }}
beta = {{ low = 0.8, high = 0.99 }}
width_1 = {{ low = 256, high = 1024 }}
width_2 = {{ low = 64, high = 256 }}
weight_decay = {{ low = 1e-6, high = 1e-2, log = true }}
batch_size = [32, 64, 128, 256]
"""


def fixed_list(num_trials: int, seed: int) -> list[dict[str, Any]]:
    """The configurations that both sides train, in this order; another list for each ``seed``."""
    draw = random.Random(seed)
    # In turn, so that each list has as many of each: an epoch's cost depends on the batch size most.
    batches = [(32, 64, 128, 256)[index % 4] for index in range(num_trials)]
    draw.shuffle(batches)
    return [
        {
            "lr": 10 ** draw.uniform(-3, 0),
            "beta": draw.uniform(0.8, 0.99),
            "width_1": draw.randint(256, 1024),
            "width_2": draw.randint(64, 256),
            "weight_decay": 10 ** draw.uniform(-6, -2),
            "batch_size": batch,
        }
        for batch in batches
    ]


def plain_worker(address: str, data_dir: str, num_trials: int, epochs: int) -> None:
    """A worker of plain Optuna's: one objective, tensors in memory, one thread."""
    import torch
    import torchvision
    from torch.nn import functional

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = torchvision.datasets.MNIST(data_dir, train=True)
    inputs, targets = data.data.reshape(-1, 784).float() / 255, data.targets
    train, val = slice(0, 50_000), slice(50_000, 60_000)
    study = optuna.load_study(
        study_name="plain",
        storage=address,
        sampler=optuna.samplers.TPESampler(),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )

    def objective(trial: optuna.Trial) -> float:
        started = time.monotonic()
        lr, beta = trial.suggest_float("lr", 1e-3, 1.0, log=True), trial.suggest_float("beta", 0.8, 0.99)
        width_1, width_2 = trial.suggest_int("width_1", 256, 1024), trial.suggest_int("width_2", 64, 256)
        weight_decay = trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
        batch_size = trial.suggest_categorical("batch_size", [32, 64, 128, 256])
        network = torch.nn.Sequential(
            torch.nn.Linear(784, width_1), torch.nn.ReLU(), torch.nn.Linear(width_1, width_2), torch.nn.ReLU(),
            torch.nn.Linear(width_2, 10),
        )  # fmt: skip
        optimizer = torch.optim.SGD(network.parameters(), lr, beta, weight_decay=weight_decay)
        accuracy = 0.0
        for epoch in range(1, epochs + 1):
            for batch in torch.randperm(50_000).split(batch_size):
                loss = functional.cross_entropy(network(inputs[train][batch]), targets[train][batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                accuracy = (network(inputs[val]).argmax(1) == targets[val]).float().mean().item()
            trial.report(accuracy, epoch)
            trial.set_user_attr("seconds", time.monotonic() - started)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(num_trials, states=None)])


@dataclass(frozen=True)
class Row:
    """One search: ``seconds`` are those of all workers, from the first trial's start to the last one's end;
    ``cpu``: their processor time with their start."""

    name: str
    trials: int
    epochs: int
    updates: int
    seconds: float
    best: float
    cpu: float


def row(name: str, study: optuna.Study, workers: int, cpu: float) -> Row:
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    epochs = sum(len(trial.intermediate_values) for trial in trials)
    updates = sum(len(trial.intermediate_values) * -(-50_000 // trial.params["batch_size"]) for trial in trials)
    starts = min(trial.datetime_start for trial in trials if trial.datetime_start)
    ends = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
    return Row(name, len(trials), epochs, updates, workers * (ends - starts).total_seconds(), study.best_value, cpu)


def _children_seconds() -> float:
    """Processor time of the workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_run(options: argparse.Namespace, seed: int) -> list[Row]:
    """The search by ours and by plain Optuna, one after the other, on a fresh database."""
    configurations = fixed_list(options.trials, options.list_seed)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), data_dir=options.data_dir)
        study_file = tomllib.loads(STUDY.format(trials=options.trials, epochs=options.epochs, seed=seed))
        study_file["try_first"] = configurations
        used = _children_seconds()
        loaded = hpo.launch(
            study_file, settings=settings, workers=options.workers, gpus="none", progress=PlainProgress(sys.stderr)
        )
        used = _children_seconds() - used
        rows = [row("hpo", next(iter(loaded.studies.values())), options.workers, used)]
        address = loaded._experiment.storage.secret_address
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        plain = optuna.create_study(study_name="plain", storage=address, direction="maximize")
        for configuration in configurations:
            plain.enqueue_trial(configuration)
        used = _children_seconds()
        context = multiprocessing.get_context("spawn")
        arguments = (address, str(options.data_dir), options.trials, options.epochs)
        processes = [context.Process(target=plain_worker, args=arguments) for _ in range(options.workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        rows.append(row("plain Optuna", plain, options.workers, _children_seconds() - used))
        loaded._experiment.storage.engine.dispose()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--list-seed", type=int, default=0, help="which fixed list of configurations")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = [one_run(options, seed) for seed in range(options.repeats)]
    print(
        f"{'':14} {'trials':>8} {'epochs':>6} {'worker-seconds an epoch':>24} {'ms an update':>13} {'best':>8} "
        f"{'cpu s':>7}"
    )
    totals, of_updates, of_cpu = [], [], []
    for rows in zip(*found, strict=True):
        for each in rows:
            an_epoch, an_update = each.seconds / each.epochs, 1000 * each.seconds / each.updates
            print(
                f"{each.name:14} {each.trials:8} {each.epochs:6} {an_epoch:24.2f} {an_update:13.2f} {each.best:8.4f} "
                f"{each.cpu:7.0f}"
            )
        totals.append(sum(each.seconds for each in rows) / sum(each.epochs for each in rows))
        of_updates.append(1000 * sum(each.seconds for each in rows) / sum(each.updates for each in rows))
        of_cpu.append(sum(each.cpu for each in rows) / sum(each.epochs for each in rows))
    found_rates = {"worker-seconds an epoch": totals, "ms an update": of_updates, "cpu seconds an epoch": of_cpu}
    for what, (ours, plain) in found_rates.items():
        print(f"all runs, {what}: {ours:.2f} and {plain:.2f}, ratio {ours / plain:.2f}")


if __name__ == "__main__":
    main()
