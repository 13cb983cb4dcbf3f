"""Optuna's own sampler tests, on every sampler of the service, used as the service does: made anew for each ask.

Which parameters a sampler draws together is told by the study file, so each case gets one with the parameters that it
suggests. Left out is what cannot hold by design, each with its reason where it is left out, and of whole groups:

- ``MultiObjectiveSamplerTestCase``: two metrics are tested by whole workers, in ``worker/test_two_objectives.py``;
- ``SingleOnlySamplerTestCase`` wants several metrics refused by the sampler; the study file refuses them.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pydantic
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import FrozenTrial

from hpo.search.sampler_registry import SAMPLERS, build_sampler
from hpo.search.seeds import derive_seed
from hpo.studyfile.load import parse_study_file
from hpo.studyfile.model import StudyFile
from hpo.trainers.protocol import BuildOptions, Config, Trainer
from hpo.trainers.registry import TRAINERS, TrainerEntry, register

Space = dict[str, tuple[BaseDistribution, dict[str, Any] | None]]
"""Name -> distribution and the condition under which it is active, if any."""


class AnewForEachAsk(BaseSampler):
    """A sampler as a worker uses one: made for a trial with the trial's own seed, forgotten after it.

    ``after_trial`` is not passed on: trials end in a transaction of the service's, beside which no sampler runs.
    """

    def __init__(self, study_file: StudyFile) -> None:
        self._study_file = study_file
        self._lock = threading.Lock()
        self._made: dict[int, BaseSampler] = {}

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        with self._lock:
            if trial.number not in self._made:
                seed = derive_seed(self._study_file.seed, "sample", trial.number)
                self._made[trial.number] = build_sampler(
                    self._study_file.samplers[0], self._study_file.search_context(), seed
                )
            return self._made[trial.number]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        # Every trial begins with this, and what models groups needs it; the cases' own new trials leave it out.
        self._of(trial).infer_relative_search_space(study, trial)
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


class Recorder:
    """Stands where a trial is expected and notes the distribution of what is suggested."""

    def __init__(self) -> None:
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> None:
        self.distributions[name] = FloatDistribution(low, high, **options)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> None:
        self.distributions[name] = IntDistribution(low, high, **options)

    def suggest_categorical(self, name: str, choices: list[Any]) -> None:
        self.distributions[name] = CategoricalDistribution(choices)


FLAG = CategoricalDistribution([True, False])
SHARE = FloatDistribution(0, 1)
NUMBERS = {"x": FloatDistribution(-10, 10), "y": FloatDistribution(-10, 10)}
SUGGESTED: dict[str, Space] = {
    "test_nan_objective_value": {"x": (FloatDistribution(0.1, 0.2), None)},
    "test_partial_fixed_sampling": {
        "x": (FloatDistribution(-1, 1), None),
        "y": (IntDistribution(-1, 1), None),
        "z": (FloatDistribution(-1, 1), None),
    },
    "test_sample_single_distribution": {
        "a": (CategoricalDistribution([1]), None),
        "b": (IntDistribution(1, 1), None),
        "c": (IntDistribution(1, 1, log=True), None),
        "d": (FloatDistribution(1, 1), None),
        "e": (FloatDistribution(1, 1, log=True), None),
        "f": (FloatDistribution(1, 1, step=1), None),
    },
    "test_conditional_sample_independent": {
        "category": (CategoricalDistribution(["x", "y"]), None),
        "x": (CategoricalDistribution(["a", "b"]), {"category": "x"}),
        "y": (CategoricalDistribution(["a", "b"]), {"category": "y"}),
    },
    "test_conditional_parameter_objective": {"x": (FLAG, None), "y": (SHARE, {"x": True}), "z": (SHARE, {"x": False})},
    # Here the second half of the study suggests other ranges than the file has.
    "test_dynamic_range_objective": {"x": (FloatDistribution(0, 10), None), "y": (IntDistribution(0, 10), None)},
    "test_sample_relative_categorical": {
        "x": (CategoricalDistribution([1, 10, 100]), None),
        "y": (CategoricalDistribution([-1, -10, -100]), None),
    },
    "test_sample_relative_mixed": {"y": (CategoricalDistribution([-1, -10, -100]), None)},
    "test_trial_relative_params": {name: (distribution, None) for name, distribution in NUMBERS.items()},
}


def space_of(request: pytest.FixtureRequest) -> Space:
    """What the running case suggests: as listed, and as its own parameters say."""
    recorder = Recorder()
    for name, value in request.node.callspec.params.items():
        if name.startswith("suggest_method_"):
            value(recorder)
        elif name in ("distribution", "x_distribution", "y_distribution"):
            recorder.distributions["y" if name.startswith("y") else "x"] = value
        elif name == "choices":
            recorder.distributions["x"] = CategoricalDistribution(value)
    space = {name: (distribution, None) for name, distribution in recorder.distributions.items()}
    return space | SUGGESTED.get(request.node.originalname, {})


def entry_of(distribution: BaseDistribution, when: dict[str, Any] | None) -> dict[str, Any]:
    """The distribution as a study file writes it."""
    if isinstance(distribution, CategoricalDistribution):
        return {"choices": list(distribution.choices)} | ({"when": when} if when else {})
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    entry: dict[str, Any] = {"low": distribution.low, "high": distribution.high}
    if distribution.log:
        entry["log"] = True
    elif distribution.step != (1 if isinstance(distribution, IntDistribution) else None):
        entry["step"] = distribution.step
    return entry | ({"when": when} if when else {})


def field_of(distribution: BaseDistribution) -> tuple[Any, Any]:
    """The type and the default of a trainer's hyperparameter that takes the distribution's values."""
    if isinstance(distribution, CategoricalDistribution):
        types = {type(choice) for choice in distribution.choices}
        return (types.pop() if len(types) == 1 else int | str), distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return (int if isinstance(distribution, IntDistribution) else float), distribution.low


SPECS: dict[str, dict[str, Any]] = {
    # Start-up trials are random: with the fewest of them the model is what draws.
    "tpe": {"name": "tpe", "n_startup_trials": 0},
    "tpe-group": {"name": "tpe", "n_startup_trials": 0, "group": True},
    "tpe-univariate": {"name": "tpe", "n_startup_trials": 0, "multivariate": False},
    "qmc": {"name": "qmc"},
    "qmc-halton": {"name": "qmc", "qmc_type": "halton"},
    "cmaes": {"name": "cmaes", "n_startup_trials": 0, "popsize": 4},
    "gp": {"name": "gp", "n_startup_trials": 1},
    "auto": {"name": "auto"},
    "random": {"name": "random"},
    "random_2x": {"name": "random_2x"},
}


def test_every_sampler_is_here() -> None:
    # Grid search asks no sampler: a lineage is a cell, which tests of the space and of launches look at. NSGA-II is for
    # two objectives, see test_two_objectives.
    assert {spec["name"] for spec in SPECS.values()} == set(SAMPLERS) - {"grid", "nsgaii"}


class AsInTheService:
    @pytest.fixture
    def sampler(self, request: pytest.FixtureRequest, spec: str) -> Iterator[Callable[[], BaseSampler]]:
        """Makes the sampler of a study file whose trainer has just what the running case suggests."""
        space = space_of(request)
        if spec == "cmaes" and not any(_is_free_number(*item) for item in space.values()):
            pytest.skip("a study file without a free number is refused where it asks for CMA-ES")
        config: Any = pydantic.create_model(
            "Suggested", __base__=Config, **{name: field_of(distribution) for name, (distribution, _) in space.items()}
        )
        register(TrainerEntry("peers", config, _train, "has what a case suggests", {"value": "minimize"}, max_slots=1))
        study_file = parse_study_file(
            {
                "name": "peers",
                "trainer": "peers",
                "metric": "value",
                "samplers": [SPECS[spec]],
                "budget": {"trials": 20},
                "space": {name: entry_of(*item) for name, item in space.items()},
            },
            "peers.toml",
        )
        assert study_file.space.distributions() == {name: distribution for name, (distribution, _) in space.items()}
        yield lambda: AnewForEachAsk(study_file)
        del TRAINERS["peers"]


def _is_free_number(distribution: BaseDistribution, when: dict[str, Any] | None) -> bool:
    return not (when or distribution.single() or isinstance(distribution, CategoricalDistribution))


def _train(options: BuildOptions) -> Trainer:
    raise AssertionError("nothing is trained here")


@pytest.mark.parametrize("spec", SPECS)
class TestBasic(AsInTheService, BasicSamplerTestCase):
    pass


# Not random search: it draws nothing together, Optuna's does not either.
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.startswith(("tpe", "qmc"))])
class TestRelative(AsInTheService, RelativeSamplerTestCase):
    pass


@pytest.mark.parametrize("spec", ["cmaes"])
class TestRelativeNumbers(AsInTheService, RelativeSamplerTestCase):
    # CMA-ES moves numbers; choices are never among what it is asked to draw together.
    test_sample_relative_categorical = None
    test_sample_relative_mixed = None


KINDS = (
    FloatDistribution(-1.0, 1.0),
    FloatDistribution(1e-7, 1.0, log=True),
    FloatDistribution(-10, 10, step=0.5),
    IntDistribution(3, 10),
    IntDistribution(1, 100, log=True),
    IntDistribution(3, 9, step=2),
)


@pytest.mark.parametrize("spec", ["gp"])
class TestRelativeGaussianProcess(AsInTheService, RelativeSamplerTestCase):
    # Fitted anew for each of 11 draws, Optuna's 36 pairs take half a minute: each kind comes once beside another.
    @pytest.mark.parametrize(("x_distribution", "y_distribution"), list(zip(KINDS, KINDS[1:] + KINDS[:1], strict=True)))
    def test_sample_relative_numerical(
        self, sampler: Callable[[], BaseSampler], x_distribution: BaseDistribution, y_distribution: BaseDistribution
    ) -> None:
        RelativeSamplerTestCase.test_sample_relative_numerical(self, sampler, x_distribution, y_distribution)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch fits the process: on matrices of a few numbers threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
