"""What a trainer is: configurations go in, an event comes out for each epoch that a trial ends.

Nothing here imports torch, so a worker that trains something else starts in a fraction of a second. A user writes a
generator and registers it with :func:`trainer`; underneath, that generator and the packed image classifier are the
same small protocol, :class:`Trainer`, so a worker has one loop.
"""

import importlib
import importlib.util
import inspect
import logging
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import pydantic

from hpo.trainers.errors import TrainerError

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


GeneratorFunction = Callable[[Any, Run], Iterator[Metrics]]


class GeneratorTrainer:
    """The protocol over a generator function: one slot, an epoch for each yield, stopped by closing it."""

    def __init__(self, function: GeneratorFunction) -> None:
        self.capacity = 1
        self._function = function
        self._key: Hashable = None
        self._run: Run | None = None
        self._epochs: Iterator[Metrics] | None = None
        self._ended = 0
        self._last: int | None = None

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        if self._epochs is not None:
            raise RuntimeError("the slot is taken")
        self._key, self._run, self._ended = key, run, run.start_epoch
        self._last = getattr(config, "epochs", None)
        self._epochs = self._function(config, run)

    def advance(self) -> list[Event]:
        if self._epochs is None or self._run is None:
            return []
        key, run = self._key, self._run
        run.saved = None
        try:
            metrics = dict(next(self._epochs))
        except StopIteration:
            self._clear()
            return [Ended(key)]
        except BaseException as error:
            self._clear()
            if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                raise
            return [Failed(key, error)]
        self._ended += 1
        saved = run.saved
        snapshot = None if saved is None else (lambda: saved)
        finished = self._last is not None and self._ended >= self._last
        if finished:
            self.stop(key)
        return [EpochEnd(key, self._ended, metrics, finished, snapshot)]

    def stop(self, key: Hashable) -> None:
        if self._epochs is not None and key == self._key:
            epochs = self._epochs
            self._clear()
            try:
                if hasattr(epochs, "close"):
                    epochs.close()
            except KeyboardInterrupt:
                raise
            except BaseException:
                # The trial has ended as it has ended: its metrics stand, whatever goes wrong while it tidies up.
                log.warning("the trainer raised while it was closed", exc_info=True)

    def _clear(self) -> None:
        self._epochs, self._run, self._key = None, None, None


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


@dataclass(frozen=True)
class TrainerEntry:
    """One row of the table of trainers.

    Attributes:
        name: what a study file calls it.
        config: the pydantic model of its hyperparameters.
        build: makes the trainer in a worker; imports what it needs (torch) only there.
        description: one line.
        metrics: the metrics that it yields and the direction in which each is better (None: neither, or not known).
            None where the trainer did not say, and then only its first epoch can tell.
        check: called once before an experiment starts, with one full configuration: raises TrainerError for data that
            is absent, altered or does not fit; returns what the export records of the data (its fingerprint).
        max_slots: most trials it can train at once; 1 for a generator.
    """

    name: str
    config: type[pydantic.BaseModel]
    build: Callable[[BuildOptions], Trainer]
    description: str
    metrics: Mapping[str, Direction | None] | None = None
    check: Callable[[Any, Path | None, bool], dict[str, Any]] | None = None
    max_slots: int | None = None


TRAINERS: dict[str, TrainerEntry] = {}


def register(entry: TrainerEntry) -> TrainerEntry:
    """Adds a trainer to the table; a second one with the same name from another place raises TrainerError."""
    known = TRAINERS.get(entry.name)
    if known is not None and known.config.__module__ != entry.config.__module__:
        raise TrainerError(
            f"two trainers are called {entry.name!r}: in {known.config.__module__} and {entry.config.__module__}"
        )
    TRAINERS[entry.name] = entry
    return entry


def trainer(
    name: str, *, metrics: Mapping[str, Direction | None] | None = None
) -> Callable[[GeneratorFunction], GeneratorFunction]:
    """Registers a generator function as a trainer.

    Its first parameter is annotated with a pydantic model, the configuration; its second receives a :class:`Run`; it
    yields the metrics of each epoch. Its docstring's first line is its description. ``metrics`` names what it yields
    and which direction is better, so that a study file's mistakes are found before anything runs.

    Raises:
        TrainerError: where the function is no generator function or its configuration cannot be told.
    """

    def decorate(function: GeneratorFunction) -> GeneratorFunction:
        where = f"trainer {name!r} ({function.__module__}.{function.__qualname__})"
        if not inspect.isgeneratorfunction(function):
            raise TrainerError(f"{where} must be a generator function: it yields the metrics of each epoch")
        parameters = list(inspect.signature(function).parameters)
        if len(parameters) != 2:
            raise TrainerError(f"{where} must take two arguments, (config, run); it takes {len(parameters)}")
        config = typing.get_type_hints(function).get(parameters[0])
        if not (isinstance(config, type) and issubclass(config, pydantic.BaseModel)):
            raise TrainerError(f"{where}: annotate {parameters[0]!r} with the pydantic model of its configuration")
        if config.model_config.get("extra") != "forbid":
            raise TrainerError(f"{where}: derive {config.__name__} from hpo.Config, which refuses unknown names")
        description = (inspect.getdoc(function) or "").partition("\n")[0] or f"generator in {function.__module__}"
        register(
            TrainerEntry(
                name=name,
                config=config,
                build=lambda options: GeneratorTrainer(function),
                description=description,
                metrics=metrics,
                max_slots=1,
            )
        )
        return function

    return decorate


def load_trainers(modules: str | typing.Iterable[str]) -> None:
    """Imports the trainers that come with the package and the user's modules (names, or paths of ``.py`` files).

    Raises:
        TrainerError: where a module cannot be imported; its own error is the cause.
    """
    importlib.import_module("hpo.trainers.classifier.entry")
    names = modules.split(",") if isinstance(modules, str) else modules
    for name in filter(None, (name.strip() for name in names)):
        try:
            _import(name)
        except TrainerError:
            raise
        except Exception as error:
            raise TrainerError(
                f"the trainer module {name!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error


def _import(name: str) -> None:
    import sys

    if not name.endswith(".py"):
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        importlib.import_module(name)
        return
    path = Path(name).resolve()
    if not path.is_file():
        raise TrainerError(f"there is no trainer module at {path}")
    module_name = path.stem
    if (loaded := sys.modules.get(module_name)) is not None and getattr(loaded, "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
