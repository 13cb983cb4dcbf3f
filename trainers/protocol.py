"""What a trainer is: configurations go in, an event comes out for each epoch that a trial ends.

Nothing here imports torch, so a worker that trains something else starts in a fraction of a second. A user writes a
generator and registers it with :func:`trainer`; underneath, that generator and the packed image classifier are the
same small protocol, :class:`Trainer`, so a worker has one loop.
"""

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pydantic

log = logging.getLogger("hpo")

Direction = Literal["minimize", "maximize"]
Metrics = Mapping[str, float]
State = dict[str, Any]
"""What a checkpoint holds: nested dicts and lists of numbers, strings, bytes, None and torch tensors."""


class Config(pydantic.BaseModel):
    """A trainer's configuration: each field is one hyperparameter, its bounds and its default."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


@dataclass
class Run:
    """What surrounds one configuration while it trains.

    Attributes:
        device: where to train, as PyTorch spells it: ``"cpu"``, ``"cuda:0"``.
        seed: everything random in the training derives from it.
        start_epoch: number of epochs that the lineage has finished already; 0 for a fresh trial.
        checkpoint: what :meth:`save` was last given before the lineage's previous trial ended, or None.
        data_dir: the folder with the data sets, or None where the user named none.
        download: whether a missing data set may be downloaded into ``data_dir``.
        test: when the test set is looked at: during a search ``"never"``.
        artifact_dir: where :meth:`artifact` puts files; None discards them.
        observe: called with the network before the first step and after each one, for a diagnosis; it must not change
            it. Only the classifier that trains one configuration at a time calls it.
    """

    device: str = "cpu"
    seed: int = 0
    start_epoch: int = 0
    checkpoint: State | None = None
    data_dir: Path | None = None
    download: bool = False
    test: Literal["never", "last", "each"] = "never"
    artifact_dir: Path | None = None
    observe: Callable[[Any], None] | None = None
    artifacts: list[Path] = field(default_factory=list)
    saved: State | None = None

    def save(self, state: State) -> None:
        """Offers ``state`` as what a resumed trial continues from; it is written once the epoch has been yielded."""
        self.saved = state

    def artifact(self, path: str | Path) -> None:
        """Attaches the file at ``path`` to the trial; raises FileNotFoundError where there is none."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no file to attach at {path}")
        self.artifacts.append(path)


@dataclass(frozen=True)
class EpochEnd:
    """A trial has ended an epoch.

    Attributes:
        key: the key that the trial was started with.
        epoch: number of epochs that the lineage has finished, counted from 1.
        metrics: the epoch's metrics by name.
        finished: whether this was the last epoch; the slot is free again.
        snapshot: makes what a resumed trial continues from; to be called before the next ``advance`` or ``stop``.
            None where the trainer saves nothing.
    """

    key: Hashable
    epoch: int
    metrics: Metrics
    finished: bool
    snapshot: Callable[[], State] | None = None


@dataclass(frozen=True)
class Ended:
    """A trial has ended by itself with the last epoch that it reported; its slot is free."""

    key: Hashable


@dataclass(frozen=True)
class Failed:
    """A trial raised ``error`` and its slot is free; the other slots go on."""

    key: Hashable
    error: BaseException


@dataclass(frozen=True)
class Evicted:
    """The trainer had to give a trial up for reasons that are not the trial's (memory); it belongs in the queue."""

    key: Hashable
    reason: str


Event = EpochEnd | Ended | Failed | Evicted


@runtime_checkable
class Trainer(Protocol):
    """Trains up to ``capacity`` configurations at a time.

    ``capacity`` may fall while training (out of memory); it never rises.
    """

    capacity: int

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        """Puts a configuration into a free slot. What goes wrong in it comes out of ``advance`` as Failed."""
        ...

    def advance(self) -> list[Event]:
        """Trains until at least one trial ends an epoch; [] only where no slot is taken."""
        ...

    def stop(self, key: Hashable) -> None:
        """Frees the slot of a trial that is not to go on; a key that is not running is ignored."""
        ...


@dataclass(frozen=True)
class BuildOptions:
    """What a worker tells a trainer's builder.

    Attributes:
        device: as in :class:`Run`.
        slots: number of trials to train at once; None lets the trainer measure and choose.
        threads: CPU threads that this worker may use.
        configs: a few configurations of the study to be trained, for the trainer's probe.
        data_dir, download: as in :class:`Run`.
    """

    device: str = "cpu"
    slots: int | None = None
    threads: int = 1
    configs: tuple[Any, ...] = ()
    data_dir: Path | None = None
    download: bool = False
