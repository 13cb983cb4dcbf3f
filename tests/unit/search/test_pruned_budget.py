"""What a number of trials comes to under ASHA and Hyperband, beside the pruners themselves."""

import random

import optuna
import pytest

from hpo.search.context import SearchContext
from hpo.search.pruned_budget import expected, trials_for
from hpo.search.pruner_registry import PRUNERS, PrunerSpec, build_pruner
from hpo.search.space import Space


def spec(name: str, **options: int) -> PrunerSpec:
    return PrunerSpec(name, PRUNERS[name].options(**options))


def searched(pruner: PrunerSpec, trials: int, most: int, seed: int) -> tuple[int, int]:
    """Epochs and complete trials of a search with the real pruner, whose curves keep their order but for noise."""
    rng = random.Random(seed)
    study = optuna.create_study(pruner=build_pruner(pruner, SearchContext(Space({}), max_epochs=most)))
    epochs = complete = 0
    for _ in range(trials):
        trial, level = study.ask(), rng.random()
        for epoch in range(1, most + 1):
            trial.report(rng.gauss(level, 0.1), epoch)
            epochs += 1
            if epoch < most and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, level)
            complete += 1
    return epochs, complete


@pytest.mark.parametrize(
    ("pruner", "most"),
    [(spec("asha"), 27), (spec("asha", min_epochs=2, bootstrap_count=3), 20), (spec("hyperband"), 27)],
    ids=["asha", "asha, later", "hyperband"],
)
def test_it_is_what_the_pruner_does(pruner: PrunerSpec, most: int) -> None:
    runs = [searched(pruner, 20, most, seed) for seed in range(12)]
    found = expected(pruner, 20, most)
    assert found is not None
    assert found.epochs == pytest.approx(sum(epochs for epochs, _ in runs) / len(runs), rel=0.2)
    assert found.complete == pytest.approx(sum(complete for _, complete in runs) / len(runs), abs=1.5)


def test_many_trials_and_other_pruners() -> None:
    few, many = expected(spec("asha"), 200, 27), expected(spec("asha"), 2000, 27)
    assert few is not None
    assert many is not None
    assert many.epochs == pytest.approx(10 * few.epochs)
    assert expected(spec("median"), 20, 27) is None
    assert expected(PrunerSpec(), 20, 27) is None


@pytest.mark.parametrize("epochs", [27, 360, 540, 5400])
def test_the_trials_of_a_budget_come_to_it(epochs: int) -> None:
    trials = trials_for(spec("asha"), epochs, 27)
    assert trials is not None
    found = expected(spec("asha"), trials, 27)
    assert found is not None
    assert found.epochs == pytest.approx(epochs, rel=0.25)
    assert trials_for(spec("median"), epochs, 27) is None
