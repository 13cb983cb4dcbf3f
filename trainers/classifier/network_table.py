"""The table of networks, the decorator that adds one, and fields that several networks share. Imports no torch."""

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import Config

if TYPE_CHECKING:
    from torch import nn

Inputs = Literal["any", "image", "vector", "number"]
Build = Callable[[Any, tuple[int, ...], int], "nn.Module"]
ActivationName = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]


class ActivationField(Config):
    activation: ActivationName = "relu"


class BatchNormField(Config):
    batch_norm: bool = Field(False, description="batch normalization, for the networks that do not always have it")


class DropoutField(Config):
    dropout: float = Field(0.0, ge=0, lt=1, description="probability of zeroing an activation")
    dropout_generator: Literal["torch", "philox"] = Field(
        "torch",
        description="where dropout's random numbers come from: philox computes them from seed, step, layer and unit, "
        "and new experiments with dropout take it; torch draws one after the other, as experiments of version 0.1 do",
    )


@dataclass(frozen=True)
class NetworkEntry:
    """One row of the table.

    Attributes:
        name: what a study file calls it.
        description: one line.
        build: ``build(config, shape, num_classes)`` makes the network for inputs of ``shape`` (without the batch).
        fields: the hyperparameters that ``build`` reads; those of all networks are fields of one configuration.
        inputs: the shapes that it takes: images (channels, height, width), vectors (features,), one number (1,).
        packed: whether several trials may be trained as one batched computation. The network must then be nested
            ``nn.Sequential`` of the layers in `packed.layers`.
        widths: fields that are sizes of layers; in a pack, smaller trials are padded with zeros to the largest.
        counted: a data set, and the number of parameters for it at the default configuration; a test counts them.
    """

    name: str
    description: str
    build: Build
    fields: type[Config]
    inputs: Inputs = "any"
    packed: bool = False
    widths: tuple[str, ...] = ()
    counted: tuple[str, int] | None = None

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether it reads inputs of this shape."""
        fits = {"any": True, "image": len(shape) == 3, "vector": len(shape) == 1, "number": shape == (1,)}
        return fits[self.inputs]


NETWORKS: dict[str, NetworkEntry] = {}


def network(
    name: str,
    *,
    inputs: Inputs = "any",
    packed: bool = False,
    widths: tuple[str, ...] = (),
    counted: tuple[str, int] | None = None,
) -> Callable[[Build], Build]:
    """Adds a network to the table: decorates ``build(config, shape, num_classes) -> nn.Module``.

    Its first parameter is annotated with the ``Config`` of the fields that it reads; the first line of its docstring
    is its description. The arguments are those of :class:`NetworkEntry`.

    Raises:
        TrainerError: if the name is taken, the annotation is missing or ``widths`` names no field.
    """

    def decorate(build: Build) -> Build:
        where = f"network {name!r} ({build.__module__}.{build.__qualname__})"
        parameters = list(inspect.signature(build).parameters.values())
        if len(parameters) != 3:
            raise TrainerError(f"{where} must take three arguments, (config, shape, num_classes)")
        # Only the first annotation: the result's may name torch, which is not imported here.
        fields = parameters[0].annotation
        if isinstance(fields, str):
            fields = typing.get_type_hints(build).get(parameters[0].name)
        if not (isinstance(fields, type) and issubclass(fields, Config)):
            raise TrainerError(f"{where}: annotate {parameters[0].name!r} with a class derived from hpo.Config")
        if missing := [width for width in widths if width not in fields.model_fields]:
            raise TrainerError(f"{where}: widths names {', '.join(missing)}, which {fields.__name__} does not have")
        before = NETWORKS.get(name)
        if before is not None and _place(before.build) != _place(build):
            raise TrainerError(f"two networks are called {name!r}: in {before.build.__module__} and {build.__module__}")
        description = (inspect.getdoc(build) or "").partition("\n")[0] or f"network in {build.__module__}"
        NETWORKS[name] = NetworkEntry(name, description, build, fields, inputs, packed, widths, counted)
        return build

    return decorate


def _place(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__
