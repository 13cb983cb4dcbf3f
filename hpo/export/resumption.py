"""The state of a training of ``hpo train --resume FOLDER``: the same command goes on from it if it was interrupted."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from hpo.files.checkpoints import Checkpoint, CheckpointFolder
from hpo.studyfile.model import StudyFile
from hpo.trainers.protocol import EpochEnd, Run

SAVE_SECONDS = 15.0
"""Shortest time between two checkpoints of a training: epochs of milliseconds would be spent on writing them."""


class Resumption:
    """Keeps the state of one training, with one seed, below a folder.

    Trainings of other configurations, trainers or seeds in the same folder have files of their own. ``purpose`` keeps
    apart what trains the same configuration otherwise, such as the diagnosis.
    """

    def __init__(self, folder: Path, study_file: StudyFile, seed: int, purpose: str = "train") -> None:
        content: list[Any] = [
            purpose,
            study_file.trainer,
            study_file.metric,
            study_file.program_options(),
            study_file.merge({}),
        ]
        if study_file.num_seeds > 1:
            content.append(study_file.num_seeds)
        key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._files = CheckpointFolder(folder, key)
        self._seed = seed
        self._saved = time.monotonic()
        self.history: list[dict[str, float]] = []

    def restore(self, run: Run) -> list[dict[str, float]]:
        """Lets the run go on where an earlier one was interrupted; returns the metrics of the epochs that it skips.

        Raises:
            CheckpointError: if the folder cannot be read.
        """
        checkpoint = self._files.latest(self._seed)
        if checkpoint is not None:
            run.start_epoch, run.checkpoint, run.attempt = checkpoint.epoch, checkpoint.state, 1
            self.history = list(checkpoint.history)
        return list(self.history)

    def add(self, event: EpochEnd, metrics: dict[str, float]) -> None:
        """Takes an epoch in, and saves the trainer's state if the last time is long enough ago.

        Raises:
            CheckpointError: if it cannot be written.
        """
        self.history.append(metrics)
        if event.snapshot is None or time.monotonic() - self._saved < SAVE_SECONDS:
            return
        self._files.save(self._seed, Checkpoint(event.epoch, event.snapshot(), list(self.history)))
        self._saved = time.monotonic()

    def clear(self) -> None:
        """Removes the state of a training that has ended."""
        self._files.remove(self._seed)
