"""The fields that every configuration has, whatever network, optimizer or schedule it names. Imports no torch.

What only one network, optimizer or schedule reads is declared beside it: in ``networks/NAME.py``, ``optimizers.py``
and ``schedules.py``. :mod:`hpo.trainers.classifier.config` puts all of them together.
"""

from typing import Literal

from pydantic import Field

from hpo.trainers.protocol import Config


class BaseConfig(Config):
    """Data, length of the training, regularization and precision."""

    dataset: str = "mnist"
    network: str = "mlp"
    normalize: Literal["standardize", "unit"] = Field(
        "standardize", description="inputs to mean 0 and deviation 1 in each channel, or to [0, 1]"
    )
    train_size: int | None = Field(None, ge=2, description="only so many training images; null takes all")
    val_size: int | None = Field(None, ge=1, description="only so many validation images; null takes all")
    augment: bool = Field(False, description="random crop after padding by pad, and horizontal flip")
    pad: int = Field(4, ge=0, le=16, description="pixels of padding before the random crop")
    flip: bool = Field(True, description="whether augment flips images too; wrong for digits")

    epochs: int = Field(10, ge=1, le=100_000)
    batch_size: int = Field(128, ge=1, description="images of one update")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = Field(
        "auto", description="bf16 is autocast; auto takes it where the device computes it natively and it is faster"
    )
    deterministic: bool = Field(
        False, description="on a GPU only kernels that give the same bits again; slower; CPUs always do"
    )
    compiled: bool = Field(
        False,
        description="torch.compile makes kernels for the network, one trial at a time; a worker's first epoch includes "
        "the time that it takes",
    )
    evaluate_train: bool = Field(False, description="also yield loss and accuracy over the whole training set")

    optimizer: str = "sgd"
    lr: float = Field(0.05, gt=0, le=100, description="learning rate: the highest of the schedule")
    weight_decay: float = Field(0.0, ge=0, le=10, description="L2: coupled for sgd and adam, decoupled for adamw")
    l1: float = Field(0.0, ge=0, le=10, description="factor of the sum of absolute weights in the loss")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    initializer: str = "default"

    scheduler: str = "constant"
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of linear warm-up, on top of any scheduler")
