"""Lightning: ``callbacks=[ReportCallback("val_loss", trial)]`` in an objective, without ``trial`` in a program.

In a program, a checkpoint is written to ``$HPO_CHECKPOINT_DIR`` after each validation; resume with
``trainer.fit(…, ckpt_path=ReportCallback.latest_checkpoint())``.
"""

import os
from pathlib import Path
from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    from pytorch_lightning.callbacks import Callback

from hpo.integrations.reporter import Reporter

CHECKPOINT = "hpo-last.ckpt"


class ReportCallback(Callback):  # type: ignore[misc]
    """Reports each validation and ends the trial if it is pruned.

    Args:
        metric: name of the metric that the study optimizes, as ``self.log`` has it.
        trial: the trial that the objective got; None in a program, which reports by ``hpo.report``.
    """

    def __init__(self, metric: str, trial: Any = None) -> None:
        self._reporter = Reporter(metric, trial)

    @staticmethod
    def latest_checkpoint() -> str | None:
        """The checkpoint of an earlier attempt at this trial, as ``ckpt_path`` takes it; None if there is none."""
        folder = os.environ.get("HPO_CHECKPOINT_DIR")
        path = Path(folder, CHECKPOINT) if folder else None
        return str(path) if path is not None and path.is_file() else None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        metrics = dict(trainer.callback_metrics)
        self._reporter.validated(metrics, trainer.current_epoch + 1)
        folder = os.environ.get("HPO_CHECKPOINT_DIR")
        if self._reporter.trial is None and folder:
            trainer.save_checkpoint(Path(folder, CHECKPOINT))
        if self._reporter.should_stop():
            trainer.should_stop = True
