"""Loss and gradients of a pack of networks of features, without autograd: a sixth of its time for small networks.

Autograd records a graph of a hundred nodes for each step, which costs more than what small networks compute. An MLP's
backward pass is known beforehand, so it is written down here; what a layer computes is what `layers` computes.
Gradients are written into tensors that were made once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpo.trainers.classifier.packed import losses
from hpo.trainers.classifier.packed.layers import ForwardState
from hpo.trainers.classifier.packed.normalization import normalize, normalize_backward
from hpo.trainers.classifier.precision import Precision
from hpo.trainers.classifier.regularizers import Dropout

aten = torch.ops.aten

Saved = list[Any]
"""What the forward pass leaves for the backward pass, the last layer's last."""


class Linear:
    def __init__(self, at: int, has_bias: bool, is_first: bool) -> None:
        self.at, self.has_bias, self.is_first = at, has_bias, is_first

    def forward(self, x: Tensor, step: "Pass") -> Tensor:
        step.saved.append(x)
        weight = step.weights[self.at]
        if self.has_bias:
            return torch.baddbmm(step.weights[self.at + 1].unsqueeze(2), weight, x)
        return torch.bmm(weight, x)

    def backward(self, gradient: Tensor, step: "Pass") -> Tensor:
        x = step.saved.pop().transpose(1, 2)
        of_weight = step.gradients[self.at]
        if of_weight.dtype == x.dtype:
            torch.bmm(gradient, x, out=of_weight)
        else:
            of_weight.copy_(torch.bmm(gradient, x))
        if self.has_bias:
            torch.sum(gradient, 2, dtype=of_weight.dtype, out=step.gradients[self.at + 1])
        # Nothing asks for the gradient of the images.
        return gradient if self.is_first else torch.bmm(step.weights[self.at].transpose(1, 2), gradient)


class BatchNorm:
    def __init__(self, at: int, buffer: int, eps: float, momentum: float) -> None:
        self.at, self.buffer, self.eps, self.momentum = at, buffer, eps, momentum

    def forward(self, x: Tensor, step: "Pass") -> Tensor:
        state = step.state
        mean, var = state.buffers[self.buffer], state.buffers[self.buffer + 1]
        valid = mean.new_ones(state.slots, x.shape[2]) if state.valid is None else state.valid
        weight, bias = state.parameters[self.at], state.parameters[self.at + 1]
        y, now, spread, saved = normalize(x.to(mean.dtype), weight, bias, valid, self.eps)
        count = valid.sum(1)[:, None]
        mean.lerp_(now, self.momentum)
        var.lerp_(spread * (count / (count - 1)), self.momentum)
        step.saved.append((saved, x.dtype))
        return y.to(x.dtype)

    def backward(self, gradient: Tensor, step: "Pass") -> Tensor:
        saved, dtype = step.saved.pop()
        of_x, of_weight, of_bias = normalize_backward(gradient.to(saved[0].dtype), *saved)
        step.gradients[self.at].copy_(of_weight)
        step.gradients[self.at + 1].copy_(of_bias)
        return of_x.to(dtype)


class DropoutLayer:
    def __init__(self, at: int) -> None:
        self.at = at

    def forward(self, x: Tensor, step: "Pass") -> Tensor:
        return x if step.state.masks is None else x * step.state.masks[self.at]

    def backward(self, gradient: Tensor, step: "Pass") -> Tensor:
        return gradient if step.state.masks is None else gradient * step.state.masks[self.at]


class OfOutput:
    """An activation whose derivative is a function of its output, which then takes its input's place."""

    def __init__(self, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._forward, self._backward = forward, backward

    def forward(self, x: Tensor, step: "Pass") -> Tensor:
        y = self._forward(x)
        step.saved.append(y)
        return y

    def backward(self, gradient: Tensor, step: "Pass") -> Tensor:
        return self._backward(gradient, step.saved.pop())


class OfInput:
    """An activation whose derivative is a function of its input."""

    def __init__(self, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._forward, self._backward = forward, backward

    def forward(self, x: Tensor, step: "Pass") -> Tensor:
        step.saved.append(x)
        return self._forward(x)

    def backward(self, gradient: Tensor, step: "Pass") -> Tensor:
        return self._backward(gradient, step.saved.pop())


DirectLayer = Linear | BatchNorm | DropoutLayer | OfOutput | OfInput

ACTIVATIONS: dict[type[nn.Module], Callable[[Any], DirectLayer]] = {
    nn.ReLU: lambda module: OfOutput(torch.relu_, lambda g, y: aten.threshold_backward(g, y, 0)),
    nn.Tanh: lambda module: OfOutput(torch.tanh_, aten.tanh_backward),
    nn.SiLU: lambda module: OfInput(module, aten.silu_backward),
    nn.GELU: lambda module: OfInput(module, lambda g, x: aten.gelu_backward(g, x, approximate=module.approximate)),
    nn.LeakyReLU: lambda module: OfInput(
        module, lambda g, x: aten.leaky_relu_backward(g, x, module.negative_slope, False)
    ),
}


def direct_layers(template: nn.Module) -> list[DirectLayer] | None:
    """The layers of a network of features; None if one of them needs autograd."""
    made: list[DirectLayer] = []
    parameter = buffer = mask = 0
    has_linear = False
    for module in template.modules():
        if isinstance(module, nn.Sequential | nn.Flatten):
            continue
        if type(module) is nn.Linear:
            made.append(Linear(parameter, module.bias is not None, not has_linear))
            parameter += 1 + (module.bias is not None)
            has_linear = True
        elif type(module) is nn.BatchNorm1d and has_linear and module.momentum is not None:
            made.append(BatchNorm(parameter, buffer, module.eps, module.momentum))
            parameter, buffer = parameter + 2, buffer + 3
        elif type(module) is Dropout and has_linear:
            made.append(DropoutLayer(mask))
            mask += 1
        elif type(module) in ACTIVATIONS and has_linear:
            # An activation may overwrite its input only because no layer before it reads its own output again.
            made.append(ACTIVATIONS[type(module)](module))
        else:
            return None
    return made if has_linear and type(made[-1]) is Linear else None


class Pass:
    """One step's forward and backward pass.

    Attributes:
        weights: the parameters in the precision of the products.
        gradients: where the gradients go, like the parameters.
    """

    def __init__(self, state: ForwardState, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        self.state, self.weights, self.gradients = state, weights, gradients
        self.saved: Saved = []


class DirectStep:
    """The loss and the gradients of the first slots of a pack; ``parameters`` (capacity, *shape) each.

    In reduced precision the products read copies of the weights that are renewed at each step.
    """

    def __init__(self, layers: Sequence[DirectLayer], parameters: Sequence[Tensor], precision: Precision) -> None:
        self._layers, self._precision = layers, precision
        self._gradients = [torch.zeros_like(p) for p in parameters]
        reduced = precision.autocast
        self._copies = None if reduced is None else [torch.zeros_like(p, dtype=reduced) for p in parameters]
        self._firsts: dict[int, tuple[list[Tensor], list[Tensor] | None]] = {}

    def __call__(
        self, x: Tensor, y: Tensor, state: ForwardState, smoothing: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Each slot's sum of its images' losses, float64 (slots,), and the gradients of its mean loss.

        Args:
            x: (slots, features, batch).
            y: int64 (slots, batch).
            valid: bool (slots, batch), False for a row of padding; None if there is none.
        """
        slots = state.slots
        if slots not in self._firsts:
            copies = None if self._copies is None else [copy[:slots] for copy in self._copies]
            self._firsts[slots] = ([g[:slots] for g in self._gradients], copies)
        gradients, copies = self._firsts[slots]
        weights = state.parameters
        if copies is not None:
            x = x.to(copies[0].dtype)
            torch._foreach_copy_(copies, list(weights))
            weights = copies
        step = Pass(state, weights, gradients)
        for layer in self._layers:
            x = layer.forward(x, step)
        logits = x.float() if copies is not None else x
        loss, saved = losses.forward(logits, y, smoothing)
        if valid is None:
            share = loss.new_full((), 1 / y.shape[1]).expand(y.shape)
        else:
            assert state.counts is not None
            loss = loss.masked_fill_(~valid, 0)
            share = (1 / state.counts.double()).to(loss.dtype)[:, None] * valid
        gradient = losses.backward(share, *saved)
        if copies is not None:
            gradient = gradient.to(copies[0].dtype)
        for layer in reversed(self._layers):
            gradient = layer.backward(gradient, step)
        return loss.sum(1, dtype=torch.float64), gradients
