"""Configurations that were refused teach the samplers that learn: they are drawn less and less."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from hpo.search.feasibility import estimate
from hpo.search.history import is_infeasible
from hpo.search.pruner_registry import build_pruner
from hpo.search.sampler_registry import build_sampler
from hpo.search.seeds import derive_seed
from tests.unit.study_files import read

LR = {"low": 1e-3, "high": 1.0, "log": True}
BETA = {"low": 0.0, "high": 0.9}
WIDTH = {"low": 16, "high": 1024, "log": True}
DEPTH = {"low": 1, "high": 8}

Refused = Callable[[dict[str, Any]], bool]
SPACES: dict[str, tuple[dict[str, Any], Refused]] = {
    # A bound; the best lies behind it.
    "bound": ({"lr": LR, "beta": BETA}, lambda c: bool(c["beta"] > 0.6)),
    # A sum of two numbers.
    "sum": ({"lr": LR, "beta": BETA}, lambda c: bool((np.log10(c["lr"]) + 3) / 3 + c["beta"] / 0.9 > 1.18)),
    # A product of three numbers, as what fits into memory.
    "product": (
        {"lr": LR, "width": WIDTH, "depth": DEPTH, "batch_size": [16, 32, 64]},
        lambda c: bool(np.log2(c["width"] * c["batch_size"]) + c["depth"] / 2 > 15.2),
    ),
    # Combinations of choices.
    "choices": (
        {"lr": LR, "scheduler": ["constant", "step", "cosine"], "nesterov": [True, False]},
        lambda c: (c["scheduler"], c["nesterov"]) in (("constant", True), ("step", False)),
    ),
    # A conditional parameter.
    "conditional": (
        {
            "lr": LR,
            "scheduler": ["step", "cosine"],
            "step_size": {"low": 1, "high": 9, "when": {"scheduler": "step"}},
        },
        lambda c: c.get("step_size", 0) > 3,
    ),
}


def loss(values: dict[str, Any]) -> float:
    """Best at lr 0.1, and the larger the other numbers the better."""
    others = [values["beta"] / 0.9] if "beta" in values else []
    others += [np.log2(values["width"]) / 10] if "width" in values else []
    return float(np.log10(values["lr"] / 0.1) ** 2 / 4 - 0.2 * sum(others) - 0.02 * values.get("step_size", 0))


def draws(sampler: dict[str, Any], space: str, num_trials: int, seed: int = 0, pruner: Any = "none") -> np.ndarray:
    """Whether each draw was refused, by its lineage: rows of (lineage, refused); drawn again as a worker does."""
    parameters, refused = SPACES[space]
    study_file = read(samplers=[sampler], space=parameters, pruner=pruner, budget={"trials": num_trials}, seed=seed)
    spec, context = study_file.samplers[0], study_file.search_context()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="a study/x/0", pruner=build_pruner(study_file.pruner, context))
    rows = []
    for lineage in range(num_trials):
        for draw in range(50):
            study.sampler = build_sampler(spec, context, derive_seed(seed, "sample", lineage, draw))
            trial = study.ask()
            values = study_file.space.suggest(trial)
            rows.append((lineage, refused(values)))
            if not rows[-1][1]:
                end(study, trial, loss(values), lineage)
                break
            trial.set_constraint("feasible", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
    return np.array(rows)


def end(study: optuna.Study, trial: optuna.Trial, value: float, lineage: int) -> None:
    """Trains eight epochs, with a value that the last one has."""
    for epoch in range(1, 9):
        trial.report(value + (8 - epoch) * 0.1 * ((lineage * 7) % 10) / 10, epoch)
        if epoch < 8 and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, value)


def halves(rows: np.ndarray) -> tuple[float, float]:
    """The share of refused draws of the first and of the second half of the lineages."""
    middle = (rows[-1, 0] + 1) / 2
    return float(rows[rows[:, 0] < middle, 1].mean()), float(rows[rows[:, 0] >= middle, 1].mean())


@pytest.mark.parametrize("space", SPACES)
def test_a_third_of_random_draws_is_refused(space: str) -> None:
    """So that the tests below test something; and random search goes on drawing the same."""
    rows = draws({"name": "random"}, space, 300)
    assert 0.25 < rows[:, 1].mean() < 0.42


@pytest.mark.parametrize("space", SPACES)
def test_tpe_learns_to_avoid_them(space: str) -> None:
    first, second = halves(draws({"name": "tpe"}, space, 100))
    assert second < first / 2, (first, second)


def test_tpe_learns_by_optunas_rule_for_pruned_trials_too() -> None:
    first, second = halves(draws({"name": "tpe", "pruned": "optuna"}, "product", 100))
    assert second < first / 2, (first, second)


def test_tpe_learns_during_a_start_up_that_a_pruner_makes_long() -> None:
    rows = draws({"name": "tpe", "n_startup_trials": 15}, "bound", 60, pruner="asha")
    first, second = halves(rows)
    assert second < first / 2, (first, second)


def test_gp_learns_to_avoid_them() -> None:
    """The best lies behind a bound; without the refused configurations, most draws do too."""
    study_file = read(samplers=["gp"], space=SPACES["bound"][0])
    space, context = study_file.space.unconditional, study_file.search_context()

    def share(teaches: bool) -> float:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
        for _ in range(30):
            trial = study.ask(space)
            if trial.params["beta"] <= 0.6:
                study.tell(trial, loss(trial.params))
                continue
            if teaches:
                trial.set_constraint("feasible", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        refused = []
        for seed in range(5):
            study.sampler = build_sampler(study_file.samplers[0], context, seed)
            trial = study.ask(space)
            refused.append(trial.params["beta"] > 0.6)
            study.tell(trial, state=TrialState.FAIL)
        return float(np.mean(refused))

    assert share(teaches=False) > 0.5
    assert share(teaches=True) < 0.3


def test_a_model_needs_both_kinds() -> None:
    study_file = read(space=SPACES["bound"][0])
    space = study_file.space.unconditional
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for number in range(40):
        trial = study.ask(space)
        if number >= 20 and trial.params["beta"] > 0.6:
            trial.set_constraint("feasible", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        elif number < 20:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, 0.0)
    trials = study.trials
    assert estimate(space, trials[:20]) is None  # failed: it is not known why
    assert estimate(space, [trial for trial in trials if not is_infeasible(trial)]) is None
    assert estimate(space, [trial for trial in trials if is_infeasible(trial)]) is None
    assert estimate(space, trials, least=21) is None
    model = estimate(space, trials, least=20)
    assert model is not None
    probabilities = model.probabilities([{"lr": 0.1, "beta": beta} for beta in (0.1, 0.8)])
    assert probabilities[0] > 0.9 > 0.2 > probabilities[1]


def test_a_wide_space_has_a_model_without_products() -> None:
    space = read(space={"scheduler": ["constant", "step", "cosine"], "lr": LR, "beta": BETA}).space.unconditional
    wide = {f"{name} {index}": distribution for index in range(10) for name, distribution in space.items()}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(150):
        trial = study.ask(wide)
        if trial.params["scheduler 3"] == "step":
            trial.set_constraint("feasible", 1.0)
        study.tell(trial, 0.0)
    model = estimate(wide, study.trials)
    assert model is not None
    params = study.trials[0].params
    yes, no = model.probabilities([{**params, "scheduler 3": choice} for choice in ("cosine", "step")])
    assert yes > 0.8 > 0.3 > no
