"""What the tables of layers share."""

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def layers(*modules: nn.Module | None) -> nn.Sequential:
    """The modules in a row; None stands for a layer that the configuration leaves out."""
    return nn.Sequential(*[module for module in modules if module is not None])
