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

    A validation is reported with the number of its epoch. If there are several in one epoch (``val_check_interval``),
    each is reported with a number of its own.

    Args:
        metric: name of the metric that the study optimizes, as ``self.log`` has it.
        trial: the trial that the objective got; None in a program, which reports by ``hpo.report``.
    """

    def __init__(self, metric: str, trial: Any = None) -> None:
        self._reporter = Reporter(metric, trial)
        self._last_number = 0

    @staticmethod
    def latest_checkpoint() -> str | None:
        """The checkpoint of an earlier attempt at this trial, as ``ckpt_path`` takes it; None if there is none."""
        folder = os.environ.get("HPO_CHECKPOINT_DIR")
        path = Path(folder, CHECKPOINT) if folder else None
        return str(path) if path is not None and path.is_file() else None

    def state_dict(self) -> dict[str, Any]:
        return {"last_number": self._last_number}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_number = state_dict["last_number"]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._reporter.should_stop()  # from now on a program survives the SIGTERM that asks it to end

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._last_number = max(trainer.current_epoch + 1, self._last_number + 1)
        # The report comes first: a program that is killed between the two repeats an epoch and loses none.
        self._reporter.validated(dict(trainer.callback_metrics), self._last_number)
        self._save(trainer)
        if self._reporter.should_stop():
            trainer.should_stop = True

    def _save(self, trainer: Any) -> None:
        """Writes the checkpoint of a program under another name first: a kill leaves the one before."""
        folder = os.environ.get("HPO_CHECKPOINT_DIR")
        if self._reporter.trial is not None or not folder:
            return
        path = Path(folder, CHECKPOINT)
        unfinished = path.with_suffix(".new")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            os.replace(unfinished, path)
