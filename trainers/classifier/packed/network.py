"""The weights of all slots of a pack, and the way in and out of one of them."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from hpo.trainers.classifier.augment import augmented
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.networks import build_network
from hpo.trainers.classifier.packed.direct import direct_layers
from hpo.trainers.classifier.packed.layers import ForwardState, packed_layers
from hpo.trainers.classifier.precision import Precision
from hpo.trainers.classifier.regularizers import Dropout


def copy_padded(target: Tensor, source: Tensor) -> None:
    """``source`` into the first corner of ``target``, zeros elsewhere; both of the same rank."""
    if target.shape != source.shape:
        target.zero_()
        target = target[tuple(slice(size) for size in source.shape)]
    target.copy_(source)


def cut(source: Tensor, shape: Sequence[int]) -> Tensor:
    """A copy on the CPU of the first corner of ``source``, the inverse of :func:`copy_padded`."""
    return source.detach()[tuple(slice(size) for size in shape)].to("cpu", copy=True).contiguous()


def dropout_widths(network: nn.Module) -> list[int]:
    """Features that each dropout layer sees, in order: those of the layer with weights before it."""
    widths, last = [], 0
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            last = module.weight.shape[0]
        elif isinstance(module, Dropout):
            widths.append(last)
    return widths


class PackedNetwork:
    """The network of a template for ``capacity`` slots, all of them zero at first.

    ``parameters`` and ``buffers`` are lists in the order of the template's, each tensor (capacity, *shape).
    """

    def __init__(self, template: ClassifierConfig, capacity: int, device: str, precision: Precision) -> None:
        # Any dropout puts the layers in; the masks decide what they do.
        module = build_network(template.model_copy(update={"dropout": 0.5}))
        self.precision, self.pad = precision, template.pad
        self.device_type = torch.device(device).type
        self.is_features = not any(isinstance(part, nn.Conv2d) for part in module.modules())
        self.dropout_widths = dropout_widths(module)
        self.layers = packed_layers(module)
        self.direct_layers = direct_layers(module)
        self.values_per_image = sum(parameter.shape[0] for parameter in module.parameters())

        def stacked(like: Tensor) -> Tensor:
            dtype = precision.weights if like.is_floating_point() else like.dtype
            return torch.zeros((capacity, *like.shape), dtype=dtype, device=device)

        self.parameters = [stacked(parameter) for parameter in module.parameters()]
        self.buffers = [stacked(buffer) for buffer in module.buffers()]

    def gather(self, x: Tensor, index: Tensor, crops: Tensor | None = None) -> Tensor:
        """The images ``index`` (slots, batch) of ``x`` in the layout of the first layer.

        ``crops`` (slots, 3, batch) says how they are augmented; then ``x`` are images whatever the network reads.
        """
        slots, batch = index.shape
        index = index if self.is_features else index.t()
        images = x.index_select(0, index.reshape(-1))
        if crops is not None:
            crops = crops.permute((1, 0, 2) if self.is_features else (1, 2, 0))
            images = augmented(images, crops.reshape(3, -1), pad=self.pad)
        if self.is_features:
            return images.flatten(1).view(slots, batch, -1).transpose(1, 2)
        return images.reshape(batch, -1, *x.shape[2:])

    def shared(self, x: Tensor, slots: int) -> Tensor:
        """The same images for every slot, in the layout of the first layer."""
        if self.is_features:
            return x.t().expand(slots, -1, -1)
        return x[:, None].expand(-1, slots, -1, -1, -1).flatten(1, 2)

    def logits(self, x: Tensor, state: ForwardState) -> Tensor:
        """(slots, classes, batch), in at least float32."""
        autocast = self.precision.autocast
        reduced = torch.autocast(self.device_type, autocast, cache_enabled=False) if autocast else nullcontext()
        with reduced:
            for layer in self.layers:
                x = layer(x, state)
        return x.float() if autocast is not None else x

    def load(self, slot: int, network: nn.Module) -> None:
        """Puts a network of the template's kind, of at most its sizes, into a slot."""
        with torch.no_grad():
            own: list[Tensor] = [*network.parameters(), *network.buffers()]
            for stack, value in zip([*self.parameters, *self.buffers], own, strict=True):
                copy_padded(stack[slot], value)

    def state_dict(self, slot: int, network: nn.Module, num_batches: int) -> dict[str, Tensor]:
        """The slot's weights under the names and in the shapes of ``network`` (which may be on ``meta``)."""
        return self.named([*self.parameters, *self.buffers], slot, network, num_batches)

    @staticmethod
    def named(weights: Sequence[Tensor], slot: int, network: nn.Module, num_batches: int) -> dict[str, Tensor]:
        """:meth:`state_dict` of a copy of all parameters and buffers."""
        own: list[Tensor] = [*network.parameters(), *network.buffers()]
        stacks = {id(value): stack for value, stack in zip(own, weights, strict=True)}
        state: dict[str, Tensor] = {}
        named: Mapping[str, Tensor] = network.state_dict(keep_vars=True)
        for name, value in named.items():
            counted = name.endswith("num_batches_tracked")
            state[name] = torch.tensor(num_batches) if counted else cut(stacks[id(value)][slot], value.shape)
        return state
