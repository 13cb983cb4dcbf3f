"""Refused configurations, through a worker: they cost no budget, and the sampler learns to avoid them."""

from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
from optuna.trial import TrialState

from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.experiment.experiment import create_experiment
from hpo.studyfile.load import parse_study_file
from hpo.trainers.errors import Infeasible
from hpo.trainers.generator import trainer
from hpo.trainers.loading import load_trainers
from hpo.trainers.protocol import Config, Run
from hpo.trainers.registry import TRAINERS
from hpo.worker.options import WorkerOptions
from hpo.worker.worker import Worker


class Coupled(Config):
    """A third of the combinations is refused; the best lies beyond the bound."""

    x: float = 0.5
    y: float = 0.5
    refuses: bool = True

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "Coupled":
        if self.refuses and self.x + self.y > 1.18:
            raise ValueError("x + y is more than 1.18")
        return self


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    @trainer("coupled", metrics={"value": "minimize"})
    def coupled(config: Coupled, run: Run) -> Iterator[dict[str, float]]:
        if config.x + config.y > 1.18:
            raise Infeasible("it does not fit")
        yield {"value": (config.x - 0.75) ** 2 + (config.y - 0.75) ** 2}

    yield
    del TRAINERS["coupled"]


@pytest.mark.parametrize("refuses", [True, False], ids=["by its validator", "by its trainer"])
def test_the_share_of_refused_draws_falls_below_a_half(refuses: bool, storage: Storage, tmp_path: Path) -> None:
    table = {
        "name": "learns",
        "trainer": "coupled",
        "metric": "value",
        "samplers": ["tpe"],
        "budget": {"trials": 100},
        "fixed": {"refuses": refuses},
        "space": {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 0.0, "high": 1.0}},
    }
    experiment, _ = create_experiment(storage, parse_study_file(table, "study.toml"))
    worker = Worker(experiment, WorkerOptions(str(tmp_path / "checkpoints"), tmp_path / "artifacts"))
    assert worker.run() == 0
    trials = storage.get_all_trials(experiment.study_ids[0])
    accepted = [trial.user_attrs[attributes.LINEAGE] for trial in trials if trial.state is TrialState.COMPLETE]
    refused = [
        trial.user_attrs[attributes.INFEASIBLE]["lineage"]
        for trial in trials
        if attributes.INFEASIBLE in trial.user_attrs
    ]
    assert sorted(accepted) == list(range(100))
    assert len(accepted) + len(refused) == len(trials)
    assert all(trial.constraints == {"feasible": 1.0} for trial in trials if trial.state is TrialState.PRUNED)
    shares = []
    for half in (range(50), range(50, 100)):
        bad = sum(lineage in half for lineage in refused)
        shares.append(bad / (bad + 50))
    assert shares[0] > 0.05
    assert shares[1] < shares[0] / 2, shares


PROGRAM = """
import sys
x, y = map(float, sys.argv[1:])
if x + y > 1:
    print('{"infeasible": "it does not fit"}')
    sys.exit(1)
print('{"value": %r}' % (x + y))
"""


def test_a_program_that_says_so_costs_no_budget(storage: Storage, tmp_path: Path) -> None:
    """As a trainer that raises: another configuration is drawn, and samplers see a violated constraint."""
    load_trainers(())
    (tmp_path / "program.py").write_text(PROGRAM)
    table = {
        "name": "refuses",
        "trainer": "program",
        "command": ["{python}", "-S", str(tmp_path / "program.py"), "{x}", "{y}"],
        "metric": "value",
        "direction": "minimize",
        "samplers": ["random"],
        "budget": {"trials": 6},
        "try_first": [{"x": 0.9, "y": 0.9}],
        "space": {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 0.0, "high": 1.0}},
    }
    experiment, _ = create_experiment(storage, parse_study_file(table, "study.toml"))
    assert Worker(experiment, WorkerOptions(str(tmp_path / "checkpoints"), tmp_path / "artifacts")).run() == 0
    trials = storage.get_all_trials(experiment.study_ids[0])
    accepted = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    refused = [trial for trial in trials if attributes.INFEASIBLE in trial.user_attrs]
    assert sorted(trial.user_attrs[attributes.LINEAGE] for trial in accepted) == list(range(6))
    assert len(accepted) + len(refused) == len(trials)
    assert refused[0].params == {"x": 0.9, "y": 0.9}
    for trial in refused:
        assert trial.state is TrialState.PRUNED
        assert trial.constraints == {"feasible": 1.0}
        assert trial.user_attrs[attributes.REASON] == "infeasible: it does not fit"
