"""Hugging Face: ``callbacks=[ReportCallback("eval_loss", trial)]`` in an objective, without ``trial`` in a program.

In a program, ``output_dir=os.environ.get("HPO_CHECKPOINT_DIR", "out")`` with ``save_strategy="epoch"`` keeps
checkpoints for the retries of a trial, which go on by
``trainer.train(resume_from_checkpoint=ReportCallback.latest_checkpoint())``.
"""

import os
from pathlib import Path
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
        self._is_training = False

    @staticmethod
    def latest_checkpoint() -> str | None:
        """The newest complete checkpoint of an earlier attempt at this trial; None if there is none.

        The ``Trainer`` writes the file that is looked for last; a checkpoint without it was not finished.
        """
        folder = os.environ.get("HPO_CHECKPOINT_DIR")
        states = Path(folder).glob("checkpoint-*/trainer_state.json") if folder else ()
        steps = {int(path.parent.name.partition("-")[2]): path for path in states}
        return str(steps[max(steps)].parent) if steps else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._is_training = True
        self._reporter.should_stop()  # from now on a program survives the SIGTERM that asks it to end

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._is_training = False  # an evaluation after the training is the objective's own

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> Any:
        if not self._is_training:
            return control
        # The history is part of a checkpoint, so a training that goes on from one goes on counting.
        number = sum(self._reporter.metric in entry for entry in state.log_history)
        self._reporter.validated(dict(metrics or {}), number)
        if self._reporter.should_stop():
            control.should_training_stop = True
        return control
