"""Trains one image classifier at a time, its data resident on the device.

* No DataLoader and no copy between host and device within an epoch; nothing is read back before its end.
* Everything random derives from the trial's seed (`randomness`) and the learning rate from the step, so a
  checkpoint is the weights and what the optimizer remembers: resumed, a trial ends with the same bits.
"""

import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.trainers.classifier.augment import augmented, draw_crops
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.data import Split, load_split
from hpo.trainers.classifier.evaluate import evaluate
from hpo.trainers.classifier.initializers import initialize
from hpo.trainers.classifier.networks import build_network
from hpo.trainers.classifier.optimizers import build_optimizer, load_optimizer_state, optimizer_state
from hpo.trainers.classifier.precision import Precision, choose_precision, set_determinism
from hpo.trainers.classifier.randomness import derived_seed, epoch_order, generator, num_steps
from hpo.trainers.classifier.regularizers import add_l1_gradients, set_dropout_generator, set_dropout_streams
from hpo.trainers.classifier.schedules import learning_rates
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import BuildOptions, Ended, EpochEnd, Event, Failed, Metrics, Run, State

NUM_NORMS = 32
"""Steps of an epoch, evenly spaced, at which the gradient norm is taken; every step would cost the MLP 10 %."""


def norm_stride(steps: int) -> int:
    """The gradient norm is taken at the steps of an epoch that are multiples of this."""
    return max(1, steps // NUM_NORMS)


def new_network(config: ClassifierConfig, seed: int, device: str, precision: Precision) -> nn.Module:
    """The network with its initial weights, on the device; convolutions in channels-last order."""
    network = allocated(build_network(config))
    initialize(network, config.initializer, generator(seed, "initialize"))
    network = network.to(device=device, dtype=precision.weights)
    if any(isinstance(module, nn.Conv2d) for module in network.modules()):
        network = network.to(memory_format=torch.channels_last)
    return network


def num_parameters(network: nn.Module) -> int:
    """How many numbers the network learns; of a tensor that two layers share, once."""
    return sum(parameter.numel() for parameter in network.parameters())


def allocated(network: nn.Module) -> nn.Module:
    """The network with parameters and buffers on the CPU in place of those on the meta device; their values are unset.

    `nn.Module.to_empty` does the same, but imports sympy on the way: a third of a second and 40 MB in each worker.
    """
    made: dict[int, Any] = {}  # a tensor that two modules share stays shared
    with torch.no_grad():
        for module in network.modules():
            for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
                if id(parameter) not in made:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                    made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                setattr(module, name, made[id(parameter)])
            for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
                setattr(module, name, made.setdefault(id(buffer), torch.empty(buffer.shape, dtype=buffer.dtype)))
    return network


def trained_network(config: ClassifierConfig, state: State, device: str = "cpu") -> nn.Module:
    """The network of a snapshot, in evaluation mode."""
    network = new_network(config, 0, device, choose_precision(config, device))
    network.load_state_dict(state["network"])
    return network.eval()


class Training:
    """One configuration while it trains: :meth:`epoch` trains one epoch, :meth:`snapshot` is what a resumed one needs.

    Raises:
        TrainerError: where the data does not fit or the checkpoint is missing.
    """

    def __init__(self, config: ClassifierConfig, run: Run) -> None:
        self.config, self.run = config, run
        set_determinism(config.deterministic, run.device)
        self.precision = choose_precision(config, run.device)
        self.train = self._split("train")
        self.val = self._split("val")
        self.network = new_network(config, run.seed, run.device, self.precision)
        self._call: Any = torch.compile(self.network) if config.compiled else self.network
        self.parameters = list(self.network.parameters())
        self.optimizer = build_optimizer(self.parameters, config)
        self.epochs_done = run.start_epoch
        if run.start_epoch:
            if run.checkpoint is None:
                raise TrainerError(f"cannot start at epoch {run.start_epoch}: there is no checkpoint")
            self.network.load_state_dict(run.checkpoint["network"])
            load_optimizer_state(self.optimizer, run.checkpoint["optimizer"])

    def _split(self, part: Any) -> Split:
        run = self.run
        return load_split(
            self.config,
            part,
            device=run.device,
            dtype=self.precision.data,
            data_dir=run.data_dir,
            download=run.download,
        )

    @property
    def num_steps(self) -> int:
        """Updates of an epoch."""
        return num_steps(len(self.train), self.config.batch_size)

    @property
    def finished(self) -> bool:
        return self.epochs_done >= self.config.epochs

    def epoch(self) -> Metrics:
        """Trains one epoch and returns its metrics: losses are means over images, ``seconds`` include evaluation.

        ``train_loss`` is the mean over the epoch's batches as they were trained (with label smoothing and dropout,
        without penalties), ``grad_norm`` the mean L2 norm of the gradient of a batch's loss, ``lr`` that of the
        last step.
        """
        started = time.perf_counter()
        lrs = learning_rates(self.epochs_done, self.config, self.num_steps)
        loss, grad_norm = self.train_steps(lrs)
        self.epochs_done += 1
        metrics = {"train_loss": loss.item(), "lr": lrs[-1], "grad_norm": grad_norm.item()}
        evaluated = partial(evaluate, self.network, autocast=self.precision.autocast)
        if self.config.evaluate_train:
            metrics["train_set_loss"], metrics["train_set_accuracy"] = evaluated(self.train)
        metrics["val_loss"], metrics["val_accuracy"] = evaluated(self.val)
        if self.run.test == "each" or (self.run.test == "last" and self.finished):
            metrics["test_loss"], metrics["test_accuracy"] = evaluated(self._split("test"))
        metrics["seconds"] = metrics["seconds_per_epoch"] = time.perf_counter() - started
        metrics["num_parameters"] = float(num_parameters(self.network))
        return metrics

    def train_steps(self, lrs: list[float]) -> tuple[Tensor, Tensor]:
        """One update for each learning rate; mean loss of the images and mean gradient norm, on the device."""
        config, run, network, train = self.config, self.run, self.network, self.train
        device = torch.device(run.device)
        order = epoch_order(run.seed, self.epochs_done, len(train)).to(device)
        if config.dropout_generator == "philox":
            set_dropout_streams(network, derived_seed(run.seed, "dropout", self.epochs_done))
        else:
            set_dropout_generator(network, generator(run.seed, "dropout", self.epochs_done, device))
        # A user's network may hold layers that draw from PyTorch's global generators (nn.Dropout).
        torch.manual_seed(derived_seed(run.seed, "library", self.epochs_done))
        crops = None
        if config.augment:
            source = generator(run.seed, "augment", self.epochs_done)
            crops = draw_crops(len(train), source, pad=config.pad, flip=config.flip).to(device)
        group = self.optimizer.param_groups[0]
        stride = norm_stride(len(lrs))
        total = torch.zeros((), device=device, dtype=torch.float64)
        norms = []
        num_images = 0
        observe = run.observe
        if observe is not None and self.epochs_done == run.start_epoch:
            observe(network)
        network.train()
        for step, lr in enumerate(lrs):
            batch = slice(step * config.batch_size, (step + 1) * config.batch_size)
            index = order[batch]
            x = train.x[index]
            if crops is not None:
                x = augmented(x, crops[:, batch], pad=config.pad)
            loss = self._loss(x, train.y[index])
            loss.backward()  # type: ignore[no-untyped-call]
            if step % stride == 0:
                norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]))
            if config.l1:
                add_l1_gradients(self.parameters, config.l1)
            group["lr"] = lr
            self.optimizer.step()
            self.optimizer.zero_grad()
            if observe is not None:
                observe(network)
            total += loss.detach() * len(index)
            num_images += len(index)
        return total / num_images, torch.stack(norms).mean()

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        autocast = self.precision.autocast
        with torch.autocast(x.device.type, autocast or torch.bfloat16, enabled=autocast is not None):
            logits: Tensor = self._call(x)
        if autocast is not None:
            logits = logits.float()
        return functional.cross_entropy(logits, y, label_smoothing=self.config.label_smoothing)

    def snapshot(self) -> State:
        """Copies on the CPU: ``epoch``, ``network`` (a state dict) and ``optimizer`` (a dict for each parameter)."""
        return {"epoch": self.epochs_done, "network": self.weights(), "optimizer": optimizer_state(self.optimizer)}

    def weights(self) -> State:
        """A copy of the network's ``state_dict`` on the CPU."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self.network.state_dict().items()}


def _copied(snapshot: Callable[[], State]) -> Callable[[], State]:
    state = snapshot()
    return lambda: state


class ClassifierTrainer:
    """The trainer protocol with one slot. ``threads``: what it uses, which decides a result's last digits."""

    def __init__(self, options: BuildOptions) -> None:
        self.capacity = 1
        self._key: Hashable = None
        self._waiting: tuple[ClassifierConfig, Run] | None = None
        self._training: Training | None = None
        self.threads = max(1, options.threads)
        torch.set_num_threads(self.threads)

    def start(self, key: Hashable, config: Any, run: Run) -> None:
        if self._training is not None or self._waiting is not None:
            raise RuntimeError("the slot is taken")
        self._key, self._waiting = key, (config, run)

    def advance(self) -> list[Event]:
        key = self._key
        try:
            if self._waiting is not None:
                self._training = Training(*self._waiting)
                self._waiting = None
            training = self._training
            if training is None:
                return []
            if training.finished:
                self.stop(key)
                return [Ended(key)]
            metrics = training.epoch()
        except Exception as error:
            self.stop(key)
            return [Failed(key, error)]
        if training.finished:
            self.stop(key)
        snapshot = training.snapshot
        return [
            EpochEnd(
                key,
                training.epochs_done,
                metrics,
                training.finished,
                snapshot,
                lambda: _copied(snapshot),
                model=training.weights,
            )
        ]

    def stop(self, key: Hashable) -> None:
        if key == self._key:
            self._key, self._waiting, self._training = None, None, None
