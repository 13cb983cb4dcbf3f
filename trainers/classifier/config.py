"""The image classifier's configuration: every hyperparameter, its bounds and its meaning. Imports no torch.

One flat class with the fields of all networks, optimizers and schedules, each declared beside what reads it. Which
combinations make no sense is decided here, so that a study file or a sampled configuration fails before anything is
trained. A field that the chosen network, optimizer or schedule does not read is ignored.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import pydantic
from pydantic import model_validator
from pydantic.fields import FieldInfo

from hpo.trainers.classifier.base_config import BaseConfig
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.initializers import INITIALIZERS
from hpo.trainers.classifier.networks import NETWORKS
from hpo.trainers.classifier.optimizers import OPTIMIZERS
from hpo.trainers.classifier.schedules import SCHEDULERS
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import Config


def _combined(base: type[BaseConfig]) -> type[BaseConfig]:
    """``base`` with the fields of everything that the tables hold now; ``network`` and the like list the tables' names.

    Raises:
        TrainerError: if two rows declare the same field otherwise.
    """
    rows: list[Any] = [*NETWORKS.values(), *OPTIMIZERS.values(), *SCHEDULERS.values()]
    classes = list(dict.fromkeys([base, *(row.fields for row in rows)]))
    _check_agreement(classes)
    classes = [each for each in classes if not any(other is not each and issubclass(other, each) for other in classes)]
    literal: Any = Literal
    names: dict[str, Any] = {
        name: (literal[tuple(table)], base.model_fields[name].default)
        for name, table in (
            ("dataset", DATASETS),
            ("network", NETWORKS),
            ("optimizer", OPTIMIZERS),
            ("initializer", INITIALIZERS),
            ("scheduler", SCHEDULERS),
        )
    }
    try:
        # The last base's fields come first.
        bases = tuple(reversed(classes))
        made: Any = pydantic.create_model("ClassifierConfig", __base__=bases, __module__=__name__, **names)
    except TypeError as error:
        raise TrainerError(
            "the fields of the networks cannot be combined in one configuration (list shared base classes in the same "
            f"order): {error}"
        ) from error
    made.__doc__ = base.__doc__
    return cast("type[BaseConfig]", made)


def _check_agreement(classes: Sequence[type[Config]]) -> None:
    declared: dict[str, tuple[type[Config], FieldInfo]] = {}
    for each in classes:
        for name, field in each.model_fields.items():
            first, other = declared.setdefault(name, (each, field))
            if (field.annotation, field.metadata, field.default) != (other.annotation, other.metadata, other.default):
                raise TrainerError(
                    f"the field {name!r} is declared with another type, bounds or default in "
                    f"{first.__module__}.{first.__name__} and {each.__module__}.{each.__name__}: names in a study file "
                    "are flat, so give one of them another name"
                )


if TYPE_CHECKING:
    _Combined = BaseConfig
else:
    _Combined = _combined(BaseConfig)


class ClassifierConfig(_Combined):
    """What the trainer ``classifier`` trains."""

    if TYPE_CHECKING:
        # The fields of networks, optimizers and schedules are put together when the module is loaded.
        def __init__(self, **values: Any) -> None: ...

        # Those of them that are read from any configuration.
        beta: float
        dropout: float
        dropout_generator: str

    @property
    def num_train(self) -> int:
        """Training images of an epoch."""
        return min(self.train_size or DATASETS[self.dataset].num_train, DATASETS[self.dataset].num_train)

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        mistakes = list(self._mistakes())
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def _mistakes(self) -> Iterator[str]:
        data, network, given = DATASETS[self.dataset], NETWORKS[self.network], _as_any(self)
        if self.batch_size > self.num_train:
            yield (
                f"batch_size {self.batch_size} is larger than the training set ({self.dataset}: {self.num_train} "
                f"images); take at most {self.num_train}"
            )
        for field, most in (("train_size", data.num_train), ("val_size", data.num_val)):
            if (getattr(self, field) or 0) > most:
                yield f"{field} {getattr(self, field)} is more than {self.dataset} has ({most})"
        yield from SCHEDULERS[self.scheduler].check(given)
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            yield f"warmup_epochs {self.warmup_epochs:g} leaves none of the {self.epochs} epochs"
        yield from OPTIMIZERS[self.optimizer].check(given)
        if self.batch_size == 1 and given.batch_norm:
            yield "batch_norm cannot train on batches of a single image: batch_size is 1"
        if not network.takes(data.shape):
            fitting = [name for name, entry in DATASETS.items() if network.takes(entry.shape)]
            yield f"network {self.network!r} does not read the data set {self.dataset!r}; it reads {', '.join(fitting)}"
        if self.augment and not data.is_image:
            yield f"augment works on images; {self.dataset!r} has none"


def _as_any(config: BaseConfig) -> Any:
    """A configuration whose fields of networks, optimizers and schedules a type checker does not know."""
    return config


def extended_config() -> type[ClassifierConfig]:
    """:class:`ClassifierConfig` with the fields and names of what has been added to the tables since.

    Raises:
        TrainerError: if a field that was added is declared otherwise elsewhere.
    """
    made: Any = _combined(ClassifierConfig)
    return cast("type[ClassifierConfig]", made)


def reads(config: ClassifierConfig) -> set[str]:
    """The fields of its network, optimizer and schedule that the configuration reads."""
    rows: tuple[Any, ...] = (
        NETWORKS[config.network],
        OPTIMIZERS[config.optimizer],
        SCHEDULERS[config.scheduler],
    )
    return {name for row in rows for name in row.fields.model_fields}
