"""A search of demo size by the clock: when does it reach what plain Optuna comes to at its end?

An MLP on the digits, 27 epochs a trial, 360 epochs in all, ASHA, two workers, the space of
``benchmarks/curves/digits_mlp.toml``. Ours is ``hpo launch`` with packs; plain Optuna trains the same network with two
processes, one thread each, tensors in memory, on SQLite. Both clocks start with the command and so hold the imports.

The target is the median of plain Optuna's final values over the repeats. The repeats of both are interleaved, so that
what else the machine does meets both.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import optuna

from benchmarks import curves
from hpo.settings import Settings

STUDY = """
name = "time-to-target"
trainer = "classifier"
metric = "val_accuracy"
samplers = ["{sampler}"]
seed = {seed}
budget = {{ epochs = {epochs} }}
pruner = {{ name = "asha", min_epochs = 1, reduction_factor = 3 }}
"""

Reached = list[tuple[float, float]]
"""(seconds since the command began, value) of each trial that was trained to its end, by time."""


def ours(folder: Path, seed: int, epochs: int, sampler: str) -> Reached:
    """The complete trials of ``hpo launch`` with two workers, in a home that has no database yet."""
    import hpo

    text = curves.FOLDER.joinpath("digits_mlp.toml").read_text()
    file = folder / "study.toml"
    file.write_text(STUDY.format(seed=seed, epochs=epochs, sampler=sampler) + text[text.index("[fixed]") :])
    command = [sys.executable, "-m", "hpo", "launch", str(file), "--workers", "2", "--gpus", "none"]
    environment = {**os.environ, "HPO_HOME": str(folder)}
    began = time.time()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loaded = hpo.load("time-to-target", settings=Settings(home=folder))
    reached = _reached(next(iter(loaded.studies.values())), began)
    loaded._experiment.storage.engine.dispose()
    return reached


def plain(folder: Path, seed: int, epochs: int) -> Reached:
    """The complete trials of two processes of plain Optuna."""
    address = f"sqlite:///{folder / 'plain.db'}"
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.time_to_target", "--plain", address, str(seed), str(epochs)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return _reached(optuna.load_study(study_name="plain", storage=address), began)


def _reached(study: optuna.Study, began: float) -> Reached:
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    # Ours are stored in UTC, without a time zone, plain Optuna's in local time; the machine of a measurement is in UTC.
    ends = [(trial.datetime_complete.timestamp() - began, trial.value) for trial in complete if trial.datetime_complete]
    return sorted((seconds, value) for seconds, value in ends if value is not None)


def plain_search(address: str, seed: int, epochs: int) -> None:
    """Two worker processes, which share the study and its epochs."""
    optuna.create_study(study_name="plain", storage=address, direction="maximize")
    context = multiprocessing.get_context("spawn")
    spent = context.Value("i", 0)
    processes = [
        context.Process(target=plain_worker, args=(address, 2 * seed + number, epochs, spent)) for number in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def plain_worker(address: str, seed: int, epochs: int, spent: Any) -> None:
    """What a user of Optuna writes: one objective, tensors in memory, one thread."""
    import torch
    from torch.nn import functional

    from hpo.trainers.classifier.config import ClassifierConfig
    from hpo.trainers.classifier.data import load_split
    from hpo.trainers.classifier.networks import build_network

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study = optuna.load_study(
        study_name="plain",
        storage=address,
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    file = curves.study_file("digits_mlp")
    some = ClassifierConfig.model_validate(file.fixed)
    train, val = (load_split(some, part, device="cpu", data_dir=None) for part in ("train", "val"))

    def objective(trial: optuna.Trial) -> float:
        config: Any = ClassifierConfig.model_validate({**file.fixed, **file.space.suggest(trial)})
        network: Any = build_network(config).to_empty(device="cpu")
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        optimizer = torch.optim.SGD(network.parameters(), config.lr, config.beta, weight_decay=config.weight_decay)
        scheduler: Any = None
        if config.scheduler == "exponential":
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, config.exponential_gamma)
        elif config.scheduler == "cosine":
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
        accuracy = 0.0
        for epoch in range(1, config.epochs + 1):
            network.train()
            order: Any = torch.randperm(len(train))
            for batch in order.split(config.batch_size):
                loss: Any = functional.cross_entropy(network(train.x[batch]), train.y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if scheduler is not None:
                scheduler.step()
            network.eval()
            with torch.no_grad():
                accuracy = (network(val.x).argmax(1) == val.y).float().mean().item()
            with spent.get_lock():
                spent.value += 1
            trial.report(accuracy, epoch)
            if epoch < config.epochs and trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        # A trial begins only if the epochs suffice for it beside the other worker's, as far as that one may go.
        if spent.value + 2 * curves.EPOCHS > epochs:
            study.stop()

    study.optimize(objective, callbacks=[stop])


def time_to(reached: Reached, target: float) -> float:
    """Seconds to the first complete trial with at least the target; infinite if there is none."""
    return next((seconds for seconds, value in reached if value >= target - 1e-9), float("inf"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=360)
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--results", type=Path, help="file of JSON lines to go on with")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no repeat later")
    parser.add_argument("--plain", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.plain:
        return plain_search(options.plain[0], int(options.plain[1]), int(options.plain[2]))
    began = time.monotonic()
    runs: list[dict[str, Reached]] = []
    if options.results and options.results.exists():
        runs = [json.loads(line) for line in options.results.read_text().splitlines()]
    while len(runs) < options.repeats and time.monotonic() - began < options.seconds:
        seed = len(runs)
        with tempfile.TemporaryDirectory() as folder:
            run = {"plain": plain(Path(folder), seed, options.epochs)}
            run["ours"] = ours(Path(folder), seed, options.epochs, options.sampler)
        runs.append(run)
        if options.results:
            with options.results.open("a") as file:
                file.write(json.dumps(run) + "\n")
        print(f"repeat {seed}: " + ", ".join(_summary(name, run[name]) for name in run), flush=True)
    show(runs)


def _summary(name: str, reached: Reached) -> str:
    best = max((value for _, value in reached), default=float("nan"))
    return f"{name} {best:.4f} of {len(reached)} complete in {reached[-1][0] if reached else float('nan'):.1f} s"


def show(runs: list[dict[str, Reached]]) -> None:
    """The target, and the median times to it."""
    if not runs:
        raise SystemExit("no repeat was made")
    finals = {name: [max((v for _, v in run[name]), default=0.0) for run in runs] for name in ("plain", "ours")}
    target = statistics.median(finals["plain"])
    print(f"\ntarget: {target:.4f}, the median of plain Optuna's final values over {len(runs)} repeats")
    print(f"{'':14} {'final, median':>14} {'reached':>8} {'seconds to the target, median':>30}")
    times = {name: [time_to(run[name], target) for run in runs] for name in finals}
    for name, label in (("plain", "plain Optuna"), ("ours", "hpo")):
        reached = sum(seconds < float("inf") for seconds in times[name])
        print(f"{label:14} {statistics.median(finals[name]):14.4f} {reached:8} {statistics.median(times[name]):30.1f}")
    # Plain Optuna reaches the target at its end in half of the repeats: its wall time is that of a whole search.
    whole = statistics.median(run["plain"][-1][0] for run in runs if run["plain"])
    print(f"plain Optuna's whole search: {whole:.1f} s; ratio {statistics.median(times['ours']) / whole:.2f}")


if __name__ == "__main__":
    main()
