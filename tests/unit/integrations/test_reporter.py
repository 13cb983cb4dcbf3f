"""What the frameworks' callbacks report of a validation, in a program and in an objective."""

import json
import math
from pathlib import Path

import optuna
import pytest

from hpo.integrations.reporter import Reporter


def test_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_METRICS", str(tmp_path / "metrics"))
    reporter = Reporter("eval_loss")
    # Hugging Face has its own epoch among the metrics, a fraction; Lightning has tensors and texts.
    reporter.validated({"eval_loss": 0.5, "epoch": 2.5, "speed": math.inf, "name": "x"}, 3)
    reporter.validated({"eval_loss": math.nan}, 4)
    first, second = (json.loads(line) for line in (tmp_path / "metrics").read_text().splitlines())
    assert first == {"eval_loss": 0.5, "epoch": 3}
    assert second["epoch"] == 4
    assert math.isnan(second["eval_loss"])
    with pytest.raises(KeyError, match="no 'eval_loss', only loss"):
        reporter.validated({"loss": 0.5}, 5)


def test_an_objective() -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.0))
    trial = study.ask()
    reporter = Reporter("loss", trial)
    reporter.validated({"loss": 0.5, "epoch": 7.0}, 1)
    with pytest.raises(optuna.TrialPruned, match="pruned after epoch 2"):
        reporter.validated({"loss": 1.5}, 2)
    assert study.trials[0].intermediate_values == {1: 0.5, 2: 1.5}
    assert not reporter.should_stop()
