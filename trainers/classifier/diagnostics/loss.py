"""The mean loss of a network over a resident set, in batches, and its gradient.

The network is evaluated as it is used: in evaluation mode, where the loss is a mean over independent examples. In
training mode batch normalization ties the examples of a batch together and dropout makes the loss random, and then
neither a Hessian nor a gradient covariance of the loss is defined.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""``loss(outputs, targets)``: a scalar, the mean over the examples."""

BATCH_SIZE = 128

ONE_THREAD_FLOPS = 1e8
"""A batch of fewer operations is computed by one thread: several wait for each other longer than they compute."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts the model into evaluation mode, and each of its modules back into its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def batches(x: Tensor, y: Tensor, batch_size: int = BATCH_SIZE) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Slices of inputs (n, ...) and targets (n, ...), each with the share of the n examples that it holds."""
    for start in range(0, len(x), batch_size):
        part = x[start : start + batch_size]
        yield part, y[start : start + batch_size], len(part) / len(x)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def mean_loss(
    model: nn.Module, x: Tensor, y: Tensor, loss: LossFunction, parameters: Mapping[str, Tensor] | None = None
) -> float:
    """The mean loss over x (n, ...) and y (n, ...); with ``parameters`` in place of the model's own where given."""
    total = torch.zeros((), device=x.device, dtype=torch.float64)
    with evaluation_mode(model):
        for inputs, targets, share in batches(x, y):
            outputs = model(inputs) if parameters is None else functional_call(model, dict(parameters), (inputs,))
            total += loss(outputs, targets).double() * share
    return total.item()


def gradient(model: nn.Module, x: Tensor, y: Tensor, loss: LossFunction) -> Tensor:
    """The gradient of the mean loss over x and y, all parameters in one vector (num_parameters,).

    The model must be in evaluation mode; its ``.grad`` are left alone.
    """
    parameters = list(trainable(model).values())
    total = torch.zeros(sum(p.numel() for p in parameters), device=x.device, dtype=parameters[0].dtype)
    for inputs, targets, share in batches(x, y):
        gradients = torch.autograd.grad(loss(model(inputs), targets), parameters, materialize_grads=True)
        total += share * torch.cat([g.reshape(-1) for g in gradients])
    return total


@torch.no_grad()
def forward_flops(model: nn.Module, x: Tensor) -> int:
    """Floating-point operations of the network on one example of x (n, ...); what a diagnosis may cost is told by it.

    Counted, not timed, so the same network gets the same number of examples each time.
    """
    with evaluation_mode(model), FlopCounterMode(display=False) as counter:
        model(x[:1])
    return max(1, int(counter.get_total_flops()))


@contextmanager
def threads_for(flops: int) -> Iterator[None]:
    """One thread for a network of so few operations an example that more would only wait; as many as before after."""
    threads = torch.get_num_threads()
    if flops * BATCH_SIZE < ONE_THREAD_FLOPS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
