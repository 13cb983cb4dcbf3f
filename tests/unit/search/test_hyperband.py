"""A retried trial stays in its Hyperband bracket."""

import optuna
from optuna.distributions import FloatDistribution
from optuna.pruners import HyperbandPruner

from hpo.search.pruners import LineageHyperbandPruner


def study_of(lineages: list[int | None], pruner: HyperbandPruner) -> optuna.Study:
    study = optuna.create_study(study_name="bands", pruner=pruner)
    for lineage in lineages:
        study.add_trial(
            optuna.trial.create_trial(
                value=0.0,
                params={"x": 0.5},
                distributions={"x": FloatDistribution(0, 1)},
                user_attrs={} if lineage is None else {"lineage": lineage},
            )
        )
    pruner._try_initialization(study)
    return study


def brackets(pruner: HyperbandPruner, lineages: list[int | None]) -> list[int]:
    study = study_of(lineages, pruner)
    return [pruner._get_bracket_id(study, trial) for trial in study.get_trials(deepcopy=False)]


def test_a_retry_stays_in_the_bracket_of_its_lineage():
    # By number, Optuna puts the trials 0 to 7 of a study called "bands" here.
    by_number = brackets(HyperbandPruner(1, 9, 3), [None] * 8)
    assert sorted(set(by_number)) == [0, 1, 2]
    assert brackets(LineageHyperbandPruner(1, 9, 3, 3), [None] * 8) == by_number
    assert brackets(LineageHyperbandPruner(1, 9, 3, 3), list(range(8))) == by_number
    # Each lineage's retry, whatever its number.
    retried = brackets(LineageHyperbandPruner(1, 9, 3, 3), [*range(8), *reversed(range(8))])
    assert retried[8:] == by_number[::-1]
    assert brackets(HyperbandPruner(1, 9, 3), [None] * 16)[8:] != by_number[::-1]


def test_the_trial_keeps_its_number():
    pruner = LineageHyperbandPruner(1, 9, 3, 3)
    study = study_of([0, 1, 0], pruner)
    trial = study.get_trials(deepcopy=False)[2]
    pruner._get_bracket_id(study, trial)
    assert trial.number == 2
