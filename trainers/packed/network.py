"""The weights of all slots of a pack, and the way in and out of one of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.config import ClassifierConfig
from trainers.networks import build_network
from trainers.packed.layers import Pass, packed_layers
from trainers.precision import Precision
from trainers.regularizers import Dropout


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
        self.precision = precision
        self.device_type = torch.device(device).type
        self.is_features = not any(isinstance(part, nn.Conv2d) for part in module.modules())
        self.dropout_widths = dropout_widths(module)
        self.layers = packed_layers(module)
        self.values_per_image = sum(parameter.shape[0] for parameter in module.parameters())

        def stacked(like: Tensor) -> Tensor:
            dtype = precision.weights if like.is_floating_point() else like.dtype
            return torch.zeros((capacity, *like.shape), dtype=dtype, device=device)

        self.parameters = [stacked(parameter) for parameter in module.parameters()]
        self.buffers = [stacked(buffer) for buffer in module.buffers()]

    def gather(self, x: Tensor, index: Tensor) -> Tensor:
        """The images ``index`` (slots, batch) of ``x`` in the layout of the first layer."""
        slots, batch = index.shape
        if self.is_features:
            return x.index_select(0, index.reshape(-1)).view(slots, batch, -1).transpose(1, 2)
        return x.index_select(0, index.t().reshape(-1)).view(batch, -1, *x.shape[2:])

    def shared(self, x: Tensor, slots: int) -> Tensor:
        """The same images for every slot, in the layout of the first layer."""
        if self.is_features:
            return x.t().expand(slots, -1, -1)
        return x[:, None].expand(-1, slots, -1, -1, -1).flatten(1, 2)

    def logits(self, x: Tensor, state: Pass) -> Tensor:
        """(slots, classes, batch), in at least float32."""
        autocast = self.precision.autocast
        with torch.autocast(
            self.device_type, autocast or torch.bfloat16, enabled=autocast is not None, cache_enabled=False
        ):
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
        own: list[Tensor] = [*network.parameters(), *network.buffers()]
        stacks = {id(value): stack for value, stack in zip(own, [*self.parameters, *self.buffers], strict=True)}
        state: dict[str, Tensor] = {}
        named: Mapping[str, Tensor] = network.state_dict(keep_vars=True)
        for name, value in named.items():
            counted = name.endswith("num_batches_tracked")
            state[name] = torch.tensor(num_batches) if counted else cut(stacks[id(value)][slot], value.shape)
        return state


def cross_entropy(logits: Tensor, y: Tensor, smoothing: Tensor | None = None) -> Tensor:
    """Cross-entropy of each image, (slots, batch), with a label smoothing for each slot (slots,) or none.

    As torch.nn.functional.cross_entropy, which takes one number for all.

    Args:
        logits: (slots, classes, batch).
        y: (slots, batch).
    """
    log_p = functional.log_softmax(logits, 1)
    loss = -log_p.gather(1, y.unsqueeze(1)).squeeze(1)
    if smoothing is None:
        return loss
    factor = smoothing.unsqueeze(1)
    return torch.where(factor > 0, (1 - factor) * loss - factor * log_p.mean(1), loss)
