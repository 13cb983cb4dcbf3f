"""A trial in a slot of a worker."""

import logging
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from hpo.database.claims import Claim
from hpo.files.checkpoints import CheckpointFolder
from hpo.trainers.protocol import Run
from hpo.worker.study_runner import StudyDesk

log = logging.getLogger("hpo")


@dataclass
class Held:
    """A trial in a slot.

    Attributes:
        history: the metrics of each epoch that its lineage has finished.
        recorded: is done when its configuration is on record.
        final: the metrics that the trainer returned at the end, if they give the value and not an epoch's.
    """

    claim: Claim
    config: Any
    run: Run
    desk: StudyDesk
    folder: CheckpointFolder
    started: float
    history: list[dict[str, float]] = field(default_factory=list)
    audited: bool = False
    recorded: "Future[None] | None" = None
    final: dict[str, float] | None = None
