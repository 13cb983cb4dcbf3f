"""Hugging Face: ``callbacks=[ReportCallback("eval_loss", trial)]`` in an objective, without ``trial`` in a program."""

from typing import Any

from transformers import TrainerCallback

from hpo.integrations.reporter import Reporter


class ReportCallback(TrainerCallback):  # type: ignore[misc]
    """Reports each evaluation and ends the trial if it is pruned.

    Args:
        metric: name of the metric that the study optimizes, as the ``Trainer`` logs it: ``eval_loss``.
        trial: the trial that the objective got; None in a program, which reports by ``hpo.report``.
    """

    def __init__(self, metric: str, trial: Any = None) -> None:
        self._reporter = Reporter(metric, trial)
        self._num_evaluations = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._is_training = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._is_training = False  # an evaluation after the training is the objective's own

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> Any:
        if not getattr(self, "_is_training", False):
            return control
        self._num_evaluations += 1
        self._reporter.validated(dict(metrics or {}), self._num_evaluations)
        if self._reporter.should_stop():
            control.should_training_stop = True
        return control
