"""The objective of benchmarks/overhead.py: seven parameters, a report after each epoch that sleeps."""

import os
import time

import optuna


def suggest(trial: optuna.Trial) -> None:
    """The seven parameters of the sleeping trainer's space, as a person writes them for Optuna."""
    trial.suggest_float("lr", 1e-3, 1.0, log=True)
    trial.suggest_float("beta", 0.8, 0.99)
    trial.suggest_int("width_1", 256, 1024)
    trial.suggest_int("width_2", 64, 256)
    trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    trial.suggest_categorical("batch_size", [32, 64, 128, 256])
    trial.suggest_categorical("scheduler", ["constant", "step", "cosine"])


def objective(trial: optuna.Trial) -> float:
    """Sleeps ``OVERHEAD_SECONDS`` in each of ``OVERHEAD_EPOCHS`` epochs."""
    suggest(trial)
    for epoch in range(1, int(os.environ.get("OVERHEAD_EPOCHS", "8")) + 1):
        time.sleep(float(os.environ.get("OVERHEAD_SECONDS", "0.05")))
        trial.report(0.5, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return 0.5
