"""A generator function as a trainer: one slot, one epoch for each yield."""

import dataclasses
import inspect
import logging
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import pydantic

from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import Config, Direction, Ended, EpochEnd, Event, Failed, Metrics, Run
from hpo.trainers.registry import TrainerEntry, register
from hpo.trainers.surroundings import Surroundings

log = logging.getLogger("hpo")

GeneratorFunction = Callable[[Any, Run], Iterator[Metrics]]


class GeneratorTrainer:
    """The protocol over a generator function: one slot, an epoch for each yield, stopped by closing it.

    After the last yield the function runs on to its natural end: saved models and artifacts arrive, and what it raises
    there fails the trial.
    """

    def __init__(self, function: GeneratorFunction, dataclass: type | None = None) -> None:
        """``dataclass``: what ``function`` takes in place of the pydantic model with the same fields."""
        self.capacity = 1
        self._function = function
        self._dataclass = dataclass
        self._key: Hashable = None
        self._run: Run | None = None
        self._epochs: Iterator[Metrics] | None = None
        self._num_epochs = 0
        self._surroundings: Surroundings | None = None

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        if self._epochs is not None:
            raise RuntimeError("the slot is taken")
        self._key, self._run, self._num_epochs = key, run, run.start_epoch
        if self._dataclass is not None:
            given = {field.name: getattr(config, field.name) for field in _init_fields(self._dataclass)}
            try:
                config = self._dataclass(**given)
            except Exception as error:  # its __post_init__ refuses the combination
                self._epochs = _raising(error)
                return
        self._epochs = self._function(config, run)

    def advance(self) -> list[Event]:
        if self._epochs is None or self._run is None:
            return []
        key, run = self._key, self._run
        run.saved = None
        try:
            if self._surroundings is None:
                self._surroundings = Surroundings(run)
            metrics = dict(next(self._epochs))
        except StopIteration:
            self._clear()
            return [Ended(key)]
        except BaseException as error:
            self._clear()
            if isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                raise
            return [Failed(key, error)]
        self._num_epochs += 1
        saved = run.saved
        return [EpochEnd(key, self._num_epochs, metrics, False, None if saved is None else (lambda: saved))]

    def stop(self, key: Hashable) -> None:
        if self._epochs is not None and key == self._key:
            try:
                if hasattr(self._epochs, "close"):
                    self._epochs.close()
            except KeyboardInterrupt:
                raise
            except BaseException:
                # The trial has ended: its metrics stand, whatever its cleanup raises.
                log.warning("the trainer raised while it was closed", exc_info=True)
            finally:
                self._clear()

    def _clear(self) -> None:
        self._epochs, self._run, self._key = None, None, None
        if self._surroundings is not None:
            self._surroundings.restore()
            self._surroundings = None


def trainer(
    name: str,
    *,
    metrics: Mapping[str, Direction | None] | None = None,
    max_epochs: str | int | None = None,
    nan_is_no_report: bool = False,
) -> Callable[[GeneratorFunction], GeneratorFunction]:
    """Registers a generator function as a trainer.

    Its first parameter is annotated with its configuration, a pydantic model or a dataclass; its second receives a
    :class:`Run`; it yields the metrics of each epoch and runs on to its natural end after the last one. An epoch
    without the study's metric, or with None in its place, is an epoch without a report. The first line of the
    docstring is the trainer's description.

    Args:
        metrics: what it yields and which direction is better, so that mistakes are found before anything runs.
        max_epochs: name of the configuration's field that says how many epochs there will be, or their number; without
            it the field ``epochs``, if there is one. Pruners and the time left use it; the trainer is never cut.
        nan_is_no_report: whether a NaN of the study's metric marks an epoch that was not validated.

    Raises:
        TrainerError: if the function is no generator function, its configuration's type is not given, or ``max_epochs``
            names no field of it.
    """

    def decorate(function: GeneratorFunction) -> GeneratorFunction:
        where = f"trainer {name!r} ({function.__module__}.{function.__qualname__})"
        if not inspect.isgeneratorfunction(function):
            raise TrainerError(f"{where} must be a generator function: it yields the metrics of each epoch")
        parameters = list(inspect.signature(function).parameters)
        if len(parameters) != 2:
            raise TrainerError(f"{where} must take two arguments, (config, run); it takes {len(parameters)}")
        config = typing.get_type_hints(function).get(parameters[0])
        dataclass = config if isinstance(config, type) and dataclasses.is_dataclass(config) else None
        if dataclass is not None:
            config = model_of(dataclass)
        if not (isinstance(config, type) and issubclass(config, pydantic.BaseModel)):
            raise TrainerError(
                f"{where}: annotate {parameters[0]!r} with its configuration, a pydantic model or a dataclass"
            )
        if config.model_config.get("extra") != "forbid":
            raise TrainerError(f"{where}: derive {config.__name__} from hpo.Config, which refuses unknown names")
        if isinstance(max_epochs, str) and max_epochs not in config.model_fields:
            raise TrainerError(f"{where}: max_epochs = {max_epochs!r} is no field of {config.__name__}")
        if isinstance(max_epochs, int) and max_epochs < 1:
            raise TrainerError(f"{where}: max_epochs must be at least 1, not {max_epochs}")
        description = (inspect.getdoc(function) or "").partition("\n")[0] or f"generator in {function.__module__}"
        register(
            TrainerEntry(
                name=name,
                config=config,
                build=lambda options: GeneratorTrainer(function, dataclass),
                description=description,
                metrics=metrics,
                max_slots=1,
                max_epochs=max_epochs,
                nan_is_no_report=nan_is_no_report,
                module=function.__module__,
            )
        )
        function.__hpo_trainer__ = name  # type: ignore[attr-defined]
        return function

    return decorate


def model_of(dataclass: type) -> type[pydantic.BaseModel]:
    """A pydantic model with the fields and defaults of a dataclass, which refuses unknown names as hpo.Config does."""
    hints = typing.get_type_hints(dataclass, include_extras=True)
    fields: dict[str, Any] = {}
    for field in _init_fields(dataclass):
        default: Any = ...
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = pydantic.Field(default_factory=field.default_factory)
        fields[field.name] = (hints[field.name], default)
    validators: dict[str, Any] = {}
    if hasattr(dataclass, "__post_init__"):

        def accepts(self: Any) -> Any:
            """Refuses what the dataclass refuses, so that it is noticed before anything runs."""
            dataclass(**{name: getattr(self, name) for name in fields})
            return self

        validators["accepts"] = pydantic.model_validator(mode="after")(accepts)
    return pydantic.create_model(
        dataclass.__name__,
        __base__=Config,
        __module__=dataclass.__module__,
        __doc__=dataclass.__doc__,
        __validators__=validators,
        **fields,
    )


def _init_fields(dataclass: Any) -> list["dataclasses.Field[Any]"]:
    return [field for field in dataclasses.fields(dataclass) if field.init]


def _raising(error: Exception) -> Iterator[Metrics]:
    raise error
    yield {}
