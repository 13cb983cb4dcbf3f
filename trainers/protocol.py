"""The protocol of trainers: what a worker calls (:class:`Trainer`), what comes back (the events), and what training
code gets (:class:`Run`, :class:`Config`).

Nothing here imports torch, so a worker that trains something else starts in a fraction of a second. A user writes a
generator and registers it with :func:`hpo.trainer`; underneath, a generator, a program and the packed image classifier
are the same small protocol, so a worker has one loop.
"""

import logging
import tempfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pydantic

from hpo.trainers.model_file import save_model
from hpo.trainers.trial_log import LOG_NAME, TrialLog

log = logging.getLogger("hpo")

Direction = Literal["minimize", "maximize"]
Metrics = Mapping[str, float | None]
State = dict[str, Any]
"""What a checkpoint holds: nested dicts and lists of numbers, strings, bytes, None and torch tensors."""


class Config(pydantic.BaseModel):
    """A trainer's configuration: each field is one hyperparameter, its bounds and its default.

    A field that may be infinite is declared with ``Field(allow_inf_nan=True)``.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


@dataclass
class Run:
    """What surrounds one configuration while it trains.

    Attributes:
        device: where to train, as PyTorch spells it: ``"cpu"``, ``"cuda:0"``; the first of ``devices``.
        devices: all devices of this trial, more than one if the study file gives a trial several.
        seed: everything random in the training derives from it. ``random``, NumPy and torch are seeded from it before
            the training code starts, if ``seed_libraries`` is true.
        study, experiment: names of the Optuna study and of the experiment; empty in ``hpo train``.
        trial: number of the trial in its study, as Optuna counts; with ``study`` it makes a unique name for a tracker.
        lineage: number of the configuration in its study: a trial and the retries of it have the same one.
        attempt: number of earlier attempts at this lineage; 0 for the first one.
        start_epoch: number of epochs that the lineage has finished already; 0 for a fresh trial.
        checkpoint: what :meth:`save` was last given before the lineage's previous trial ended, or None.
        data_dir: the folder with the data sets, or None if the user named none.
        download: whether a missing data set may be downloaded into ``data_dir``.
        test: when to evaluate on the test set: ``"never"`` in a search; in ``hpo train`` ``"last"`` (after the last
            epoch) or ``"each"`` (after each one, because the best epoch counts). Yield what it gives as ``test_…``.
        observe: called with the network before the first step and after each one, for a diagnosis; it must not change
            it. Only the classifier that trains one configuration at a time calls it.
        trial_folder: path of :attr:`folder`, which is made if it is used; None for a temporary one.
        seed_libraries, work_in_folder: as in the study file (``work_in = "trial"`` makes the latter true).
        metric: name of the study's metric, or the first of two.
        second_metric: name of the second one; None if there is one.
        seeds: the seeds of all trainings of the trial, of which ``seed`` is the first; training code sees its own one
            only, as ``seed``.
        optuna_trial: for an Optuna objective, the trial of the search that it gets; None in ``hpo train``.
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
    devices: tuple[str, ...] = ()
    study: str = ""
    experiment: str = ""
    trial: int = 0
    lineage: int = 0
    attempt: int = 0
    trial_folder: Path | None = None
    seed_libraries: bool = True
    work_in_folder: bool = False
    metric: str = "value"
    second_metric: str | None = None
    optuna_trial: Any = None
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.devices = self.devices or (self.device,)
        self.seeds = self.seeds or (self.seed,)

    @property
    def folder(self) -> Path:
        """A folder of this trial's own: empty for a first attempt, kept for its retries.

        It lies below the checkpoint folder (or the home), so a retry on another machine sees its files only if that
        folder is shared. The study file's ``keep_folders`` says which folders stay after the trials have ended.
        """
        if self.trial_folder is None:
            self.trial_folder = Path(tempfile.mkdtemp(prefix="hpo-trial-"))
        self.trial_folder.mkdir(parents=True, exist_ok=True)
        return self.trial_folder

    def save(self, state: State) -> None:
        """Offers ``state`` as what a resumed trial continues from; it is written once the epoch has been yielded."""
        self.saved = state

    def artifact(self, path: str | Path) -> None:
        """Attaches the file at ``path`` to the trial; raises FileNotFoundError if there is none."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no file to attach at {path}")
        self.artifacts.append(path)

    def log(self, text: object) -> None:
        """Adds a line to the trial's log, which ``hpo logs EXPERIMENT TRIAL`` and the dashboard show."""
        line = str(text).encode("utf-8", "backslashreplace")
        TrialLog(self.folder / LOG_NAME).write(line + b"\n")

    def save_model(self, model: Any) -> Path:
        """Keeps the trial's model, in place of one that was kept before; ``hpo export EXPERIMENT --model`` writes it.

        ``model`` is the path of a file, which is copied, or a ``torch.nn.Module`` or a state that ``torch.save`` takes.
        Returns the path of the kept file, ``model`` with its suffix in :attr:`folder`.

        Raises:
            FileNotFoundError: if there is no file at the path.
            TypeError: for a state if torch is not imported; save it to a file and give its path.
        """
        return save_model(model, self.folder)


@dataclass(frozen=True)
class EpochEnd:
    """A trial has ended an epoch.

    Attributes:
        key: the key that the trial was started with.
        epoch: number of epochs that the lineage has finished, counted from 1.
        metrics: the epoch's metrics by name. Without the study's metric, or with None in its place, it is an epoch
            without a report: nothing is pruned and the value stays that of an earlier epoch.
        finished: whether this was the last epoch; the slot is free again. If False, ``advance`` ends the trial with
            :class:`Ended` after its last epoch, once its code has run to its end.
        snapshot: makes what a resumed trial continues from; to be called before the next ``advance`` or ``stop``.
            None where the trainer saves nothing.
        capture: copies now what a resumed trial continues from, and returns what makes the state of the copies, on any
            thread and at any time; None if only ``snapshot`` can be asked, or nothing is saved.
        model: copies now the weights that are the trial's model, to the CPU; to be called before the next ``advance``
            or ``stop``. None if the trainer's code keeps its model itself, with :meth:`Run.save_model`.
        may_prune: whether the trial may be pruned now; False if an objective has not asked ``should_prune``.
    """

    key: Hashable
    epoch: int
    metrics: Metrics
    finished: bool
    snapshot: Callable[[], State] | None = None
    capture: Callable[[], Callable[[], State]] | None = None
    may_prune: bool = True
    model: Callable[[], State] | None = None


@dataclass(frozen=True)
class Ended:
    """A trial has ended by itself; its slot is free.

    Attributes:
        metrics: what gives the trial its value, if the trainer returns that at the end as an Optuna objective does;
            None if an epoch that it reported gives the value.
    """

    key: Hashable
    metrics: Metrics | None = None


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

    @property
    def capacity(self) -> int: ...

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        """Puts a configuration into a free slot. What goes wrong in it comes out of ``advance`` as Failed."""
        ...

    def advance(self) -> list[Event]:
        """Trains until at least one trial ends an epoch; [] if no slot is taken, or `WorksAhead.is_wanted`."""
        ...

    def stop(self, key: Hashable) -> None:
        """Frees the slot of a trial that is not to go on; a key that is not running is ignored."""
        ...


@runtime_checkable
class WorksAhead(Protocol):
    """A trainer of many slots that a worker can give its next trials while others train.

    Attributes:
        is_wanted: set by the worker; if it returns true, ``advance`` returns soon, also without an event.
    """

    is_wanted: Callable[[], bool]

    def prepare(self, config: Any, seed: int) -> None:
        """Says that a fresh trial will start soon; from any thread, does not wait."""
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
        program: the study file's keys for a trainer that runs a program; empty for every other.
        memory_bytes: what this process may hold in all, with what it holds already; None: not known.
        device_workers: workers that share the device, each with an equal part of its memory.
        choose_threads: whether the trainer may use fewer threads; it then has the number as ``threads``.
    """

    device: str = "cpu"
    slots: int | None = None
    threads: int = 1
    configs: tuple[Any, ...] = ()
    data_dir: Path | None = None
    download: bool = False
    program: Mapping[str, Any] = field(default_factory=dict)
    memory_bytes: int | None = None
    choose_threads: bool = False
    device_workers: int = 1
