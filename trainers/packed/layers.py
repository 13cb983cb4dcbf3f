"""The layers of a network with a leading dimension for the slot.

Two layouts: features are (slots, features, batch), so that a weight keeps PyTorch's shape and classes are the middle
dimension (on a CPU a softmax over it takes a fifteenth of the time of one over the last); images are
(batch, slots * channels, height, width), which is what a grouped convolution reads.

A narrower trial's weights are padded with zeros. Then its missing units are 0 after every activation here and get a
gradient of exactly 0, and so they stay without any mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.networks.layers import ACTIVATIONS
from trainers.regularizers import Dropout


@dataclass
class Pass:
    """What a pass through the network knows besides its input.

    Attributes:
        parameters, buffers: of the slots that take part, (slots, *shape) each.
        training: whether normalization uses and records the batch's statistics, and dropout is on.
        valid: (slots, batch), 1 for an image and 0 for a row of padding; None where all rows are images.
        counts: (slots,), images of each slot's batch; None with ``valid``.
        masks: for each dropout layer what to multiply with, (slots, features, batch); None leaves dropout out.
    """

    parameters: Sequence[Tensor]
    buffers: Sequence[Tensor]
    training: bool
    valid: Tensor | None = None
    counts: Tensor | None = None
    masks: Sequence[Tensor] | None = None

    @property
    def slots(self) -> int:
        return len(self.parameters[0])


Layer = Callable[[Tensor, Pass], Tensor]


@dataclass
class Cursor:
    """Counts what the layers so far have taken of the template's parameters, buffers and dropout masks."""

    parameter: int = 0
    buffer: int = 0
    mask: int = 0


def linear(module: nn.Linear, cursor: Cursor) -> Layer:
    at, has_bias = cursor.parameter, module.bias is not None
    cursor.parameter += 1 + has_bias

    def forward(x: Tensor, state: Pass) -> Tensor:
        weight = state.parameters[at]
        if not has_bias:
            return torch.bmm(weight, x)
        return torch.baddbmm(state.parameters[at + 1].unsqueeze(2), weight, x)

    return forward


def convolution(module: nn.Conv2d, cursor: Cursor) -> Layer:
    at, has_bias = cursor.parameter, module.bias is not None
    cursor.parameter += 1 + has_bias
    padding, stride = module.padding, module.stride
    assert not isinstance(padding, str)

    def forward(x: Tensor, state: Pass) -> Tensor:
        weight = state.parameters[at].flatten(0, 1)
        bias = state.parameters[at + 1].flatten() if has_bias else None
        return functional.conv2d(x, weight, bias, stride, padding, groups=state.slots)

    return forward


def batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, cursor: Cursor) -> Layer:
    """Statistics for each slot. Slots and channels are one dimension to PyTorch's own where no row is padding."""
    at, buffer = cursor.parameter, cursor.buffer
    cursor.parameter += 2
    cursor.buffer += 3
    eps, momentum, is_image = module.eps, module.momentum, isinstance(module, nn.BatchNorm2d)
    assert momentum is not None

    def forward(x: Tensor, state: Pass) -> Tensor:
        weight, bias = state.parameters[at], state.parameters[at + 1]
        mean, var = state.buffers[buffer], state.buffers[buffer + 1]
        if not state.training or state.valid is None:
            channels = x if is_image else x.reshape(1, -1, x.shape[2])
            y = functional.batch_norm(
                channels, mean.view(-1), var.view(-1), weight.flatten(), bias.flatten(), state.training, momentum, eps
            )
            return y.view(x.shape)
        assert state.counts is not None
        slots = state.slots
        dims: tuple[int, ...] = (0, 3) if is_image else (2,)
        shape = (1, slots, -1, 1) if is_image else (slots, -1, 1)
        if is_image:
            values = x.view(len(x), slots, -1, x.shape[2] * x.shape[3])
            valid, count = state.valid.t()[:, :, None, None], (state.counts * values.shape[3]).view(1, slots, 1, 1)
        else:
            values, valid, count = x, state.valid[:, None, :], state.counts.view(slots, 1, 1)
        values = values.to(mean.dtype)
        # Rows of padding repeat an image of their own batch, so they are finite where the batch is.
        center = (values * valid).sum(dims, keepdim=True) / count
        values = values - center
        spread = (values * values * valid).sum(dims, keepdim=True) / count
        with torch.no_grad():
            mean.lerp_(center.view(slots, -1), momentum)
            var.lerp_((spread * (count / (count - 1))).view(slots, -1), momentum)
        y = values * torch.rsqrt(spread + eps) * weight.view(shape) + bias.view(shape)
        normalized: Tensor = y.view(x.shape).to(x.dtype)
        return normalized

    return forward


def dropout(module: Dropout, cursor: Cursor) -> Layer:
    at = cursor.mask
    cursor.mask += 1
    return lambda x, state: x if state.masks is None else x * state.masks[at]


def flatten(module: nn.Flatten, cursor: Cursor) -> Layer:
    """Images to features; features stay as they are."""

    def forward(x: Tensor, state: Pass) -> Tensor:
        return x if x.ndim == 3 else x.view(len(x), state.slots, -1).permute(1, 2, 0)

    return forward


def unchanged(module: nn.Module, cursor: Cursor) -> Layer:
    """Layers that treat every channel or value alike."""
    return lambda x, state: module(x)


LAYERS: dict[type[nn.Module], Callable[..., Layer]] = {
    nn.Linear: linear,
    nn.Conv2d: convolution,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    Dropout: dropout,
    nn.Flatten: flatten,
    nn.MaxPool2d: unchanged,
    nn.AdaptiveAvgPool2d: unchanged,
    **dict.fromkeys(ACTIVATIONS.values(), unchanged),
}


def packed_layers(template: nn.Module) -> list[Layer]:
    """The leaves of a network of nested Sequentials, in order, each as a layer for packs.

    Raises:
        TypeError: where a layer has no packed form.
    """
    cursor = Cursor()
    layers: list[Layer] = []
    for module in template.modules():
        if isinstance(module, nn.Sequential):
            continue
        if type(module) not in LAYERS:
            raise TypeError(f"no packed form is known for {type(module).__name__}")
        layers.append(LAYERS[type(module)](module, cursor))
    return layers
