"""The image classifier's configuration: every hyperparameter, its bounds and its meaning. Imports no torch.

Which combinations make no sense is decided here too, so that a study file or a sampled configuration fails before
anything is trained. A parameter that the chosen network, scheduler or optimizer does not read is ignored.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.initializers import INITIALIZERS
from hpo.trainers.classifier.networks import NETWORKS
from hpo.trainers.classifier.optimizers import OPTIMIZERS
from hpo.trainers.classifier.schedules import SCHEDULERS
from hpo.trainers.protocol import Config

DatasetName = Literal["digits", "mnist", "fashion_mnist", "cifar10", "line"]
NetworkName = Literal["mlp", "cnn", "squeeze_expand", "resnet18", "relu_line"]
OptimizerName = Literal["sgd", "adam", "adamw"]
SchedulerName = Literal["constant", "step", "multistep", "exponential", "cyclic", "cosine", "onecycle"]
InitializerName = Literal["default", "kaiming", "xavier"]
ActivationName = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]


def _known(kind: str, table: Iterable[str]) -> Callable[[Any], Any]:
    """A check that names the near miss and the known names, which pydantic's own error for a literal does not."""
    names = list(table)

    def check(value: Any) -> Any:
        if value in names:
            return value
        close = get_close_matches(str(value), names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown {kind} {value!r}{hint}; known: {', '.join(names)}")

    return check


def _milestones(value: Any) -> Any:
    """``"60/120/160"`` is a list of epochs that a search can choose between."""
    return [part.strip() for part in value.split("/")] if isinstance(value, str) else value


class ClassifierConfig(Config):
    """What the trainer ``classifier`` trains."""

    dataset: Annotated[DatasetName, BeforeValidator(_known("data set", DATASETS))] = "mnist"
    network: Annotated[NetworkName, BeforeValidator(_known("network", NETWORKS))] = "mlp"
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
    evaluate_train: bool = Field(False, description="also yield loss and accuracy over the whole training set")

    optimizer: Annotated[OptimizerName, BeforeValidator(_known("optimizer", OPTIMIZERS))] = "sgd"
    lr: float = Field(0.05, gt=0, le=100, description="learning rate: the highest of the schedule")
    beta: float = Field(0.9, ge=0, lt=1, description="momentum of sgd, beta1 of adam and adamw")
    beta2: float = Field(0.999, ge=0, lt=1, description="beta2 of adam and adamw")
    nesterov: bool = Field(False, description="Nesterov's momentum, for sgd")
    weight_decay: float = Field(0.0, ge=0, le=10, description="L2: coupled for sgd and adam, decoupled for adamw")
    l1: float = Field(0.0, ge=0, le=10, description="factor of the sum of absolute weights in the loss")
    dropout: float = Field(0.0, ge=0, lt=1, description="probability of zeroing an activation")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    initializer: Annotated[InitializerName, BeforeValidator(_known("initializer", INITIALIZERS))] = "default"

    scheduler: Annotated[SchedulerName, BeforeValidator(_known("scheduler", SCHEDULERS))] = "constant"
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of linear warm-up, on top of any scheduler")
    step_size: int = Field(3, ge=1, description="epochs between drops (step)")
    gamma: float = Field(0.1, gt=0, le=1, description="factor of a drop (step, multistep)")
    milestones: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_milestones)] = Field(
        (), description='epochs after which lr drops (multistep), as a list or "60/120/160"'
    )
    exponential_gamma: float = Field(0.9, gt=0, le=1, description="factor of every epoch (exponential)")
    cycle_epochs: float = Field(4.0, gt=0, description="epochs from low to high and back (cyclic)")
    base_factor: float = Field(0.1, ge=0, le=1, description="lowest lr as a fraction of lr (cyclic), first (onecycle)")
    rise_fraction: float = Field(0.3, gt=0, lt=1, description="part of the training in which lr rises (onecycle)")
    final_factor: float = Field(0.0, ge=0, le=1, description="last lr as a fraction of lr (cosine, onecycle)")

    width_1: int = Field(512, ge=1, le=65_536, description="units of the first hidden layer (mlp)")
    width_2: int = Field(256, ge=1, le=65_536, description="units of the second hidden layer (mlp)")
    channels_1: int = Field(32, ge=1, le=4_096, description="channels of the first convolution (cnn)")
    channels_2: int = Field(16, ge=1, le=4_096, description="channels of the second convolution (cnn)")
    head_width: int = Field(64, ge=1, le=65_536, description="units of the first linear layer (cnn)")
    activation: ActivationName = "relu"
    batch_norm: bool = Field(False, description="batch normalization (mlp, cnn, relu_line; the others always have it)")

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

    def _mistakes(self) -> Iterable[str]:
        data = DATASETS[self.dataset]
        if self.batch_size > self.num_train:
            yield (
                f"batch_size {self.batch_size} is larger than the training set ({self.dataset}: {self.num_train} "
                f"images); take at most {self.num_train}"
            )
        for field, most in (("train_size", data.num_train), ("val_size", data.num_val)):
            if (getattr(self, field) or 0) > most:
                yield f"{field} {getattr(self, field)} is more than {self.dataset} has ({most})"
        late = [milestone for milestone in self.milestones if milestone >= self.epochs]
        if self.scheduler == "multistep" and late:
            yield f"milestones {late} are not before the last epoch ({self.epochs}), so lr would never drop there"
        if self.scheduler == "multistep" and not self.milestones:
            yield "scheduler 'multistep' needs milestones: the epochs after which lr drops"
        if list(self.milestones) != sorted(set(self.milestones)):
            yield f"milestones {list(self.milestones)} must rise"
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            yield f"warmup_epochs {self.warmup_epochs:g} leaves none of the {self.epochs} epochs"
        if self.nesterov and self.optimizer == "sgd" and self.beta == 0:
            yield "nesterov needs momentum: beta is 0"
        if self.batch_norm and self.batch_size == 1:
            yield "batch_norm cannot train on batches of a single image: batch_size is 1"
        kind = "line" if data.shape == (1,) else "image"
        reads = NETWORKS[self.network].inputs
        if reads not in ("any", kind):
            fitting = [name for name, entry in DATASETS.items() if (entry.shape == (1,)) == (reads == "line")]
            yield f"network {self.network!r} does not read the data set {self.dataset!r}; it reads {', '.join(fitting)}"
        if self.augment and kind != "image":
            yield f"augment works on images; {self.dataset!r} has none"
