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

from hpo.trainers.classifier.layers import ACTIVATIONS
from hpo.trainers.classifier.packed.normalization import NormalizedFeatures
from hpo.trainers.classifier.regularizers import Dropout


@dataclass
class ForwardState:
    """What a pass through the network knows besides its input.

    Attributes:
        parameters, buffers: of the slots that take part, (slots, *shape) each.
        training: whether normalization features and records the batch's statistics, and dropout is on.
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


Layer = Callable[[Tensor, ForwardState], Tensor]


@dataclass
class LayerOffsets:
    """Counts what the layers so far have taken of the template's parameters, buffers and dropout masks."""

    parameter: int = 0
    buffer: int = 0
    mask: int = 0


def linear(module: nn.Linear, offsets: LayerOffsets) -> Layer:
    at, has_bias = offsets.parameter, module.bias is not None
    offsets.parameter += 1 + has_bias

    def forward(x: Tensor, state: ForwardState) -> Tensor:
        weight = state.parameters[at]
        if not has_bias:
            return torch.bmm(weight, x)
        return torch.baddbmm(state.parameters[at + 1].unsqueeze(2), weight, x)

    return forward


def convolution(module: nn.Conv2d, offsets: LayerOffsets) -> Layer:
    at, has_bias = offsets.parameter, module.bias is not None
    offsets.parameter += 1 + has_bias
    padding, stride = module.padding, module.stride
    assert not isinstance(padding, str)

    def forward(x: Tensor, state: ForwardState) -> Tensor:
        weight = state.parameters[at].flatten(0, 1)
        bias = state.parameters[at + 1].flatten() if has_bias else None
        return functional.conv2d(x, weight, bias, stride, padding, groups=state.slots)

    return forward


def batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, offsets: LayerOffsets) -> Layer:
    """Statistics for each slot. Slots and channels are one dimension to PyTorch's own layer where that is possible."""
    at, buffer = offsets.parameter, offsets.buffer
    offsets.parameter += 2
    offsets.buffer += 3
    eps, momentum = module.eps, module.momentum
    assert momentum is not None
    masked = _normalized_images if isinstance(module, nn.BatchNorm2d) else _normalized_features

    def forward(x: Tensor, state: ForwardState) -> Tensor:
        weight, bias = state.parameters[at], state.parameters[at + 1]
        mean, var = state.buffers[buffer], state.buffers[buffer + 1]
        if not state.training or (state.valid is None and masked is _normalized_images):
            channels = x.reshape(1, -1, x.shape[2]) if x.ndim == 3 else x
            y = functional.batch_norm(
                channels, mean.view(-1), var.view(-1), weight.flatten(), bias.flatten(), state.training, momentum, eps
            )
            return y.view(x.shape)
        y, now, spread, count = masked(x.to(mean.dtype), weight, bias, state, eps)
        with torch.no_grad():
            mean.lerp_(now, momentum)
            var.lerp_(spread * (count / (count - 1)), momentum)
        return y.to(x.dtype)

    return forward


Normalized = tuple[Tensor, Tensor, Tensor, Tensor]
"""The output, and for each slot its mean and biased variance (slots, features) and how many values they are of."""


def _normalized_features(x: Tensor, weight: Tensor, bias: Tensor, state: ForwardState, eps: float) -> Normalized:
    valid = x.new_ones(state.slots, x.shape[2]) if state.valid is None else state.valid
    y, mean, var = NormalizedFeatures.apply(x, weight, bias, valid, eps)
    return y, mean, var, valid.sum(1)[:, None]


def _normalized_images(x: Tensor, weight: Tensor, bias: Tensor, state: ForwardState, eps: float) -> Normalized:
    assert state.valid is not None
    assert state.counts is not None
    slots, shape = state.slots, (1, state.slots, -1, 1)
    values = x.reshape(len(x), slots, -1, x.shape[2] * x.shape[3])
    # Rows of padding repeat an image of their own batch, so they are finite where the batch is.
    valid, count = state.valid.t()[:, :, None, None], (state.counts * values.shape[3]).view(1, slots, 1, 1)
    mean = (values * valid).sum((0, 3), keepdim=True) / count
    values = values - mean
    var = (values * values * valid).sum((0, 3), keepdim=True) / count
    y = values * torch.rsqrt(var + eps) * weight.view(shape) + bias.view(shape)
    return y.view(x.shape), mean.detach().view(slots, -1), var.detach().view(slots, -1), count.view(slots, 1)


def dropout(module: Dropout, offsets: LayerOffsets) -> Layer:
    at = offsets.mask
    offsets.mask += 1
    return lambda x, state: x if state.masks is None else x * state.masks[at]


def flatten(module: nn.Flatten, offsets: LayerOffsets) -> Layer:
    """Images to features; features stay as they are."""

    def forward(x: Tensor, state: ForwardState) -> Tensor:
        return x if x.ndim == 3 else x.reshape(len(x), state.slots, -1).permute(1, 2, 0)

    return forward


def unchanged(module: nn.Module, offsets: LayerOffsets) -> Layer:
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
    offsets = LayerOffsets()
    layers: list[Layer] = []
    for module in template.modules():
        if isinstance(module, nn.Sequential):
            continue
        if type(module) not in LAYERS:
            raise TypeError(f"no packed form is known for {type(module).__name__}")
        layers.append(LAYERS[type(module)](module, offsets))
    return layers
