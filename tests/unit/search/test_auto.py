"""``auto``: a Gaussian process where it pays, TPE elsewhere, and the reason for each draw."""

import collections
import logging
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hpo.database import attributes
from hpo.search import auto
from hpo.search.context import SearchContext
from hpo.search.observed_space import SharedSpace
from hpo.search.optuna_internals import GPWithKernel
from hpo.search.sampler_registry import SAMPLERS, SamplerSpec, build_sampler
from tests.unit.study_files import read

SPACE = {"lr": {"low": 1e-3, "high": 1.0, "log": True}, "beta": {"low": 0.0, "high": 0.9}}
CONDITIONAL = {"scheduler": ["step", "cosine"], "step_size": {"low": 1, "high": 4, "when": {"scheduler": "step"}}}


@pytest.fixture(autouse=True)
def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "_draw_seconds", {})
    monkeypatch.setattr(auto, "_last_reason", {})
    monkeypatch.setattr(auto, "_has_drawn", set())
    monkeypatch.setattr(auto, "_kernels", {})


def drawn_by(num_complete: int, seconds: float, options: dict[str, Any] | None = None, **changes: Any) -> str:
    """Which sampler the next trial of a study with so many complete trials is drawn with, and why."""
    study_file = read(**{"space": SPACE, "samplers": [{"name": "auto", **(options or {})}], **changes})
    space = study_file.space
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="a study/auto/0", sampler=optuna.samplers.RandomSampler(0))
    for index in range(num_complete):
        values = {
            name: p.points(9)[index % len(p.points(9))] for name, p in space.parameters.items() if hasattr(p, "points")
        }
        study.add_trial(
            create_trial(
                value=float(index),
                params=values,
                distributions={name: space.parameters[name].distribution() for name in values},
                user_attrs={attributes.SECONDS: seconds},
            )
        )
    study.sampler = build_sampler(study_file.samplers[0], study_file.search_context(), 0)
    trial = study.ask()
    space.suggest(trial)
    study.tell(trial, state=TrialState.FAIL)
    return str(study.trials[-1].user_attrs[attributes.DRAWN_BY])


def test_a_small_space_with_long_trials_gets_a_gaussian_process(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hpo"):
        assert drawn_by(12, seconds=600.0) == "gp: the space is small, and a trial costs more than a draw"
    assert "a study/auto/0 draws with gp: the space is small" in caplog.text
    assert not auto._draw_seconds["a study/auto/0"]  # the first one says nothing
    drawn_by(12, seconds=600.0)
    assert 0 < auto._draw_seconds["a study/auto/0"][0] < 30  # measured


@pytest.mark.parametrize(
    ("num_complete", "seconds", "changes", "reason"),
    [
        (9, 600.0, {}, "the first 10 trials are drawn at random"),
        (12, 1.0, {}, "a draw of the Gaussian process would cost more than 5 % of a trial"),
        (12, 600.0, {"pruner": "asha"}, "a Gaussian process learns nothing from pruned trials"),
        (12, 600.0, {"space": {**SPACE, **CONDITIONAL}}, "a Gaussian process models no conditional parameters"),
        (12, 600.0, {"options": {"max_parameters": 1}}, "2 parameters are more than 1"),
        (12, 600.0, {"options": {"max_trials": 11}}, "more than 11 trials are complete"),
    ],
)
def test_tpe_draws_elsewhere(num_complete: int, seconds: float, changes: dict[str, Any], reason: str) -> None:
    assert drawn_by(num_complete, seconds, **changes) == f"tpe: {reason}"


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto.importlib.util, "find_spec", lambda name: None)
    assert drawn_by(12, 600.0) == "tpe: the Gaussian process needs torch, which is not installed"


def test_a_cost_that_was_measured_once_does_not_rule_it_out_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was busy when the Gaussian process was tried."""
    measured = collections.deque([40.0, 1.0, 50.0], maxlen=5)
    monkeypatch.setattr(auto, "_draw_seconds", {"a study/auto/0": measured})
    assert drawn_by(12, 600.0).startswith("tpe")
    assert list(measured) == pytest.approx([40.0 * 0.97, 0.97, 50.0 * 0.97])
    measured[0] = 30.0
    assert drawn_by(12, 600.0).startswith("gp")


def test_the_fitted_kernel_is_kept_from_draw_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    began_with: list[Any] = []
    begin = GPWithKernel.begin_with
    monkeypatch.setattr(GPWithKernel, "begin_with", lambda self, k: (began_with.append(k), begin(self, k)))
    for _ in range(2):
        assert drawn_by(12, 600.0).startswith("gp")
    assert began_with[0] is None
    assert began_with[1] is not None
    assert auto._kernels["a study/auto/0"] is not began_with[1]  # fitted anew, from there


def test_an_objective_with_parameters_of_some_trials_only() -> None:
    """Its space is what its trials have suggested."""
    shared = {"lr": optuna.distributions.FloatDistribution(0.1, 1.0)}
    for has_others, name in ((False, "gp"), (True, "tpe")):
        context = SearchContext(SharedSpace({}, shared=shared, has_others=has_others))
        study = optuna.create_study(study_name="objective/auto/0", sampler=optuna.samplers.RandomSampler(0))
        for number in range(12):
            attrs = {attributes.SECONDS: 600.0}
            values = {"lr": 0.1 + number / 20}
            study.add_trial(create_trial(value=number, params=values, distributions=shared, user_attrs=attrs))
        sampler = build_sampler(SamplerSpec("auto", "auto", SAMPLERS["auto"].options()), context, 0)
        assert isinstance(sampler, auto.AutoSampler)
        assert sampler.choose(study)[0] == name


def test_it_draws_what_the_chosen_sampler_draws() -> None:
    study_file = read(space=SPACE, samplers=["auto", "tpe"])
    context = study_file.search_context()
    drawn = []
    for spec in study_file.samplers:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
        for number in range(15):
            study.tell(study.ask(study_file.space.distributions()), number)
        study.sampler = build_sampler(spec, context, 7)
        drawn.append(study_file.space.suggest(study.ask()))
    assert drawn[0] == drawn[1]
