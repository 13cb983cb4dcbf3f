"""A generator function as a trainer: one slot, one epoch for each yield."""

import inspect
import logging
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import pydantic

from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import Direction, Ended, EpochEnd, Event, Failed, Metrics, Run
from hpo.trainers.registry import TrainerEntry, register

log = logging.getLogger("hpo")

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
