"""What the callbacks of all frameworks do with a validation: report it, and find out whether the trial goes on.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import math
from typing import Any

from hpo.trainers.reporting import report, should_stop


class Reporter:
    """Reports to an Optuna trial, or, without one, as ``hpo.report`` does in a program.

    Args:
        metric: name of the metric that the study optimizes, as the framework calls it.
        trial: the trial that the objective got; None in a program.
    """

    def __init__(self, metric: str, trial: Any = None) -> None:
        self.metric = metric
        self.trial = trial

    def validated(self, metrics: dict[str, Any], epoch: int) -> None:
        """Reports one validation; ``epoch`` counts from 1.

        Raises:
            optuna.TrialPruned: if the trial is pruned.
            KeyError: if the metric is not among ``metrics``.
        """
        if self.metric not in metrics:
            known = ", ".join(sorted(metrics)) or "nothing"
            raise KeyError(f"the validation gives no {self.metric!r}, only {known}")
        if self.trial is None:
            numbers = {name: float(value) for name, value in metrics.items() if _is_number(value)}
            numbers[self.metric] = float(metrics[self.metric])  # NaN too: the service ends a trial that diverges
            numbers.pop("epoch", None)  # a framework may have an epoch of its own among its metrics
            report(epoch=epoch, **numbers)
            return
        self.trial.report(float(metrics[self.metric]), epoch)
        if self.trial.should_prune():
            import optuna

            raise optuna.TrialPruned(f"pruned after epoch {epoch}")

    def should_stop(self) -> bool:
        """Whether a program is asked to end; an objective ends by its exception."""
        return self.trial is None and should_stop()


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
