"""Trial-epochs a second: ordinary PyTorch, ours one at a time, several processes, and packed; a search; a study.

(a) one process, one trial at a time, DataLoader    (b) ours, one at a time    (c) several processes of (b)
(d) packed, at each number of slots                 then a search of mixed sizes with pruning
then whole studies of each kind, see ``packed_studies``

On a CPU a pack in single precision uses one core, so as many processes as cores are measured too, as workers are.

Beside each figure is its floor: the rate at which the machine would go if a step were nothing but its multiplications
and its traffic to memory, at the rates measured in this run. On a CPU there is also the rate for each second of
processor time, which other processes on the machine change less.
"""

import argparse
import multiprocessing
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import packed_studies
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.data import load_split
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.networks import build_network
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.classifier.precision import choose_precision
from hpo.trainers.classifier.randomness import num_steps
from hpo.trainers.classifier.training import ClassifierTrainer
from hpo.trainers.protocol import BuildOptions, EpochEnd, Failed, Run, Trainer

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "digits": (
        {"dataset": "digits", "width_1": 64, "width_2": 32, "batch_size": 32, "epochs": 10},
        "8x8 digits, MLP of 64 and 32 units, batch 32",
    ),
    "mnist": (
        {"dataset": "mnist", "width_1": 1024, "width_2": 256, "batch_size": 128, "epochs": 10},
        "MNIST, MLP of 1024 and 256 units, batch 128",
    ),
    "squeeze": (
        {"dataset": "mnist", "network": "squeeze_expand", "batch_size": 128, "epochs": 10},
        "MNIST, squeeze-expand CNN, batch 128",
    ),
}

MIXED: dict[str, dict[str, list[int]]] = {
    "digits": {"width_1": [16, 24, 32, 48, 64], "width_2": [16, 24, 32], "batch_size": [16, 32, 64]},
    "mnist": {"width_1": [512, 843, 1024, 2048], "width_2": [64, 256, 323, 512], "batch_size": [32, 64, 128, 256]},
    "squeeze": {"batch_size": [64, 128, 256]},
}


@dataclass(frozen=True)
class Rate:
    """Trial-epochs a second by the clock, and for each second of processor time."""

    clock: float
    cpu: float


@dataclass(frozen=True)
class Setting:
    device: str
    threads: int
    data_dir: Path | None
    seconds: float

    def build(self, slots: int, configs: tuple[ClassifierConfig, ...]) -> Trainer:
        options = BuildOptions(self.device, slots, self.threads, configs, self.data_dir)
        return ClassifierTrainer(options) if slots == 1 else PackedTrainer(options, slots)

    def run(self, seed: int) -> Run:
        return Run(device=self.device, seed=seed, data_dir=self.data_dir)


def train(
    trainer: Trainer,
    configs: Iterable[ClassifierConfig],
    setting: Setting,
    stop: Callable[[EpochEnd], bool] = lambda event: False,
) -> int:
    """Trains all configurations, refilling slots; the number of epochs that they took."""
    todo, held, epochs = list(enumerate(configs)), 0, 0
    while todo or held:
        while todo and held < trainer.capacity:
            key, config = todo.pop(0)
            trainer.start(key, config, setting.run(key))
            held += 1
        for event in trainer.advance():
            if isinstance(event, Failed):
                raise event.error
            if not isinstance(event, EpochEnd):
                raise MemoryError(str(event))
            epochs += 1
            if event.finished or stop(event):
                trainer.stop(event.key)
                held -= 1
    return epochs


def timed(work: Callable[[], int]) -> Rate:
    clock, cpu = time.perf_counter(), time.process_time()
    epochs = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Rate(epochs / (time.perf_counter() - clock), epochs / (time.process_time() - cpu))


def packed_rate(setting: Setting, config: ClassifierConfig, slots: int, configs: list[ClassifierConfig]) -> Rate:
    """The rate of as many waves of trials as the time asks for, after a short first one."""
    trainer = setting.build(slots, (config, *configs[:1]))
    short = config.model_copy(update={"epochs": 1})
    first = timed(lambda: train(trainer, [short] * slots, setting))
    waves = max(1, round(setting.seconds * first.clock / (slots * config.epochs)))
    return timed(lambda: train(trainer, configs or [config] * (slots * waves), setting))


def plain_rate(setting: Setting, config: ClassifierConfig) -> Rate:
    """(a): torch.nn, torch.optim and a DataLoader, as a tutorial writes it; validation at each epoch's end."""
    from torch.utils.data import DataLoader, TensorDataset

    train_set, val_set = (
        load_split(config, part, device="cpu", data_dir=setting.data_dir) for part in ("train", "val")
    )
    loader = DataLoader(TensorDataset(train_set.x, train_set.y), batch_size=config.batch_size, shuffle=True)
    val_loader = DataLoader(TensorDataset(val_set.x, val_set.y), batch_size=1000)
    network = build_network(config).to_empty(device=setting.device)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimizer = torch.optim.SGD(network.parameters(), lr=config.lr, momentum=config.beta)
    loss_function = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        network.train()
        for x, y in loader:
            loss = loss_function(network(x.to(setting.device)), y.to(setting.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            sum((network(x.to(setting.device)).argmax(1).cpu() == y).sum().item() for x, y in val_loader)

    def several() -> int:
        began, epochs = time.perf_counter(), 0
        while epochs < 2 or time.perf_counter() - began < setting.seconds:
            epoch()
            epochs += 1
        return epochs

    return timed(several)


def _process(setting: Setting, config: ClassifierConfig, slots: int, num_trials: int, ready: Any, queue: Any) -> None:
    trainer = setting.build(slots, (config,))
    train(trainer, [config.model_copy(update={"epochs": 1})] * slots, setting)
    ready.wait()
    began = time.time()
    epochs = train(trainer, [config] * num_trials, setting)
    queue.put((epochs, began, time.time()))


def processes_rate(setting: Setting, config: ClassifierConfig, count: int, slots: int, single: Rate) -> Rate:
    """``count`` processes that train ``slots`` trials at a time on the same device, a core each on a CPU."""
    context = multiprocessing.get_context("spawn")
    ready, queue = context.Barrier(count), context.Queue()
    one = Setting(setting.device, 1, setting.data_dir, setting.seconds)
    trials = slots * max(1, round(setting.seconds * single.clock / config.epochs / slots))
    given = (one, config, slots, trials, ready, queue)
    processes = [context.Process(target=_process, args=given) for _ in range(count)]
    for process in processes:
        process.start()
    results = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    span = max(end for _, _, end in results) - min(began for _, began, _ in results)
    return Rate(sum(epochs for epochs, _, _ in results) / span, float("nan"))


def floor(setting: Setting, config: ClassifierConfig) -> float:
    """Trial-epochs a second if a step were only its multiplications or only its traffic, whichever takes longer.

    A weight times an input costs 2 operations forward and 4 backward, 2 fewer in the first layer. Weights, gradients
    and momentum are read and written: 8 passes over the weights.
    """
    precision = choose_precision(config, setting.device)
    dtype = precision.autocast or precision.weights
    network = build_network(config)
    weights = [p for p in network.parameters() if p.ndim > 1]
    height, width = (*DATASETS[config.dataset].shape[1:], 1, 1)[:2]
    # Convolutions run at a quarter of the pixels after the first pooling; counted so from the second one on.
    pixels = [1 if p.ndim == 2 else height * width // (1 if i == 0 else 4) for i, p in enumerate(weights)]
    products = [p.numel() * n for p, n in zip(weights, pixels, strict=True)]
    operations = config.batch_size * (6 * sum(products) - 2 * products[0])
    traffic = 8 * 4 * sum(p.numel() for p in network.parameters())
    a = torch.randn(2048, 2048, device=setting.device, dtype=dtype)
    big = torch.empty(2**26, device=setting.device)
    operations_rate = 2 * 2048**3 / _best(lambda: a @ a)
    traffic_rate = 2 * 4 * 2**26 / _best(lambda: big.mul_(1.0))
    step = max(operations / operations_rate, traffic / traffic_rate)
    return 1 / (step * num_steps(config.num_train, config.batch_size))


def _best(call: Callable[[], object]) -> float:
    times = []
    for _ in range(6):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


def mixed_rates(setting: Setting, case: str, config: ClassifierConfig, slots: int) -> tuple[Rate, Rate]:
    """A search of mixed sizes; two of three trials are stopped after their second epoch. (b), then packed."""
    draw = random.Random(0)

    def one() -> ClassifierConfig:
        sizes = {name: draw.choice(values) for name, values in MIXED[case].items()}
        return config.model_copy(update={**sizes, "lr": 10 ** draw.uniform(-3, -1), "beta": draw.uniform(0.8, 0.95)})

    configs = [one() for _ in range(3 * slots)]
    rates = []
    for count, trials in ((1, configs[: max(6, slots // 8)]), (slots, configs)):
        trainer = setting.build(count, tuple(configs[:8]))
        train(trainer, [trial.model_copy(update={"epochs": 1}) for trial in trials[:count]], setting)
        pruned = lambda event: event.epoch == 2 and event.key % 3 != 0  # noqa: E731
        rates.append(timed(lambda t=trainer, c=trials, s=pruned: train(t, c, setting, s)))  # type: ignore[misc]
    return rates[0], rates[1]


def show(name: str, rate: Rate, base: Rate | None, limit: float, on_cpu: bool) -> None:
    gain = f"{rate.clock / base.clock:7.1f}" if base else f"{'':7}"
    cpu = f"{rate.cpu:11.2f}" if on_cpu and rate.cpu == rate.cpu else f"{'':11}"
    print(f"{name:34} {rate.clock:11.2f} {gain} {cpu} {limit:11.1f}", flush=True)


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="default: digits; all of them on a GPU")
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--slots", type=int, nargs="*", default=[4, 16, 64, 256])
    parser.add_argument("--processes", type=int, default=8 if on_gpu else torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, about")
    parser.add_argument("--images", type=int, help="only so many images to train and to validate; default: all")
    parser.add_argument("--trials", type=int, default=256 if on_gpu else 64, help="of the whole study; 0 leaves it out")
    options = parser.parse_args()
    setting = Setting(options.device, options.threads, options.data_dir, options.seconds)
    torch.set_num_threads(options.threads)
    for case in options.case or (list(CASES) if on_gpu else ["digits"]):
        values, description = CASES[case]
        if options.images is not None:
            values = {**values, "train_size": options.images, "val_size": options.images}
        measure(setting, case, values, description, options)


def measure(setting: Setting, case: str, values: dict[str, Any], description: str, options: Any) -> None:
    config = ClassifierConfig.model_validate(values)
    on_cpu = setting.device == "cpu"
    limit = floor(setting, config)
    precision, cpu = choose_precision(config, setting.device).name, "cpu second" if on_cpu else ""
    print(f"\n{description}; {setting.device}, {setting.threads} threads, {precision}")
    print(f"{'trial-epochs a second':34} {'by clock':>11} {'x (b)':>7} {cpu:>11} {'floor':>11}")
    plain = plain_rate(setting, config)
    alone = packed_rate(setting, config, 1, [])
    show("(a) PyTorch with DataLoader", plain, alone, limit, on_cpu)
    show("(b) ours, one at a time", alone, alone, limit, on_cpu)
    several = processes_rate(setting, config, options.processes, 1, alone)
    show(f"(c) {options.processes} processes of (b)", several, alone, limit, on_cpu)
    rates = {}
    for slots in options.slots:
        rates[slots] = packed_rate(setting, config, slots, [])
        show(f"(d) packed, {slots} slots", rates[slots], alone, limit, on_cpu)
    best = max(rates, key=lambda slots: rates[slots].clock)
    if on_cpu:
        several = processes_rate(setting, config, options.processes, best, rates[best])
        show(f"(d) packed, {best} slots, {options.processes} processes", several, alone, limit, on_cpu)
    mixed_alone, mixed = mixed_rates(setting, case, config, best)
    show("mixed sizes, pruned, one at a time", mixed_alone, mixed_alone, limit, on_cpu)
    show(f"mixed sizes, pruned, {best} slots", mixed, mixed_alone, limit, on_cpu)
    if options.trials:
        packed_studies.measure(
            "equal networks, ASHA", packed_studies.equal(options.trials, values), [best, None], setting.data_dir
        )
        if case == "digits" and options.images is None:
            table = packed_studies.digits_mlp(options.trials)
            packed_studies.measure("studies/digits_mlp.toml, not pruned", table, [best, None])


if __name__ == "__main__":
    main()
