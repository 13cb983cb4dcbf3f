"""Epochs per second of each network beside the same network written the ordinary way, in the same run.

The ordinary way: torchvision's data set and transforms, a DataLoader with 2 workers, torch.optim, fp32. Ours: the
classifier with its defaults (resident tensors, bfloat16 where the processor has it). An epoch is training and
validation; with ``--images`` less than the training set, the time is scaled to all of it. On a CPU the last columns are
for as many processes as threads, one thread each, which is how a launch trains there: the time of all divided by the
epochs of all.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch.utils.data import DataLoader, Subset

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.networks import build_network
from hpo.trainers.classifier.precision import choose_precision
from hpo.trainers.classifier.training import Training
from hpo.trainers.protocol import Run

CASES = {
    "mlp": {"dataset": "mnist", "network": "mlp", "width_1": 843, "width_2": 323, "batch_size": 128},
    "cnn": {"dataset": "mnist", "network": "cnn", "batch_size": 128},
    "squeeze_expand": {"dataset": "mnist", "network": "squeeze_expand", "batch_size": 128},
    "resnet18": {"dataset": "cifar10", "network": "resnet18", "batch_size": 128, "augment": True},
}
FOLDERS = {"mnist": torchvision.datasets.MNIST, "cifar10": torchvision.datasets.CIFAR10}


def ours(config: ClassifierConfig, device: str, data_dir: Path) -> Callable[[], object]:
    """One epoch of the classifier."""
    training = Training(config, Run(device=device, data_dir=data_dir))
    return training.epoch


def ordinary(config: ClassifierConfig, device: str, data_dir: Path) -> Callable[[], object]:
    """One epoch as a tutorial writes it."""
    steps: list[object] = [torchvision.transforms.ToTensor()]
    if config.augment:
        steps = [torchvision.transforms.RandomCrop(32, 4), torchvision.transforms.RandomHorizontalFlip(), *steps]
    data = FOLDERS[config.dataset](data_dir, train=True, transform=torchvision.transforms.Compose(steps))
    train = Subset(data, range(config.num_train))
    val_size = config.val_size or DATASETS[config.dataset].num_val
    val = Subset(data, range(len(data) - val_size, len(data)))
    loader = DataLoader(train, config.batch_size, shuffle=True, num_workers=2)
    val_loader = DataLoader(val, 1000, num_workers=2)
    network = build_network(config).to_empty(device=device)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimizer = torch.optim.SGD(network.parameters(), config.lr, config.beta)
    loss_function = torch.nn.CrossEntropyLoss()

    def epoch() -> None:
        network.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss_function(network(x.to(device)), y.to(device)).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for x, _ in val_loader:
                network(x.to(device)).argmax(1)

    return epoch


def seconds(epoch: Callable[[], object], device: str, times: int) -> float:
    """The fastest of ``times`` epochs, after a first one."""
    epoch()
    found = []
    for _ in range(times):
        if device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        epoch()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found)


def _worker(config: ClassifierConfig, data_dir: Path, times: int, ready: Any, queue: Any) -> None:
    torch.set_num_threads(1)
    epoch = ours(config, "cpu", data_dir)
    epoch()
    ready.wait()
    started = time.time()
    for _ in range(times):
        epoch()
    queue.put((started, time.time()))


def seconds_of_workers(config: ClassifierConfig, data_dir: Path, times: int, count: int) -> float:
    """Seconds an epoch of ``count`` processes together, each with one thread."""
    context = multiprocessing.get_context("spawn")
    ready, queue = context.Barrier(count), context.Queue()
    given = (config, data_dir, times, ready, queue)
    processes = [context.Process(target=_worker, args=given) for _ in range(count)]
    for process in processes:
        process.start()
    spans = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return (max(end for _, end in spans) - min(began for began, _ in spans)) / (times * count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", choices=CASES, default=["mlp", "cnn", "squeeze_expand"])
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, help="train on so many only")
    parser.add_argument("--times", type=int, default=2)
    options = parser.parse_args()
    print(f"{torch.__version__}, {options.device}, {torch.get_num_threads()} threads; seconds an epoch")
    count = torch.get_num_threads() if options.device == "cpu" else 1
    workers = f"  {count} workers  times" if count > 1 else ""
    print(f"{'network':16} {'ordinary':>9} {'ours':>9} {'times':>6}  precision{workers}")
    for name in options.networks:
        values = dict(CASES[name]) | {"epochs": 1000}
        full = ClassifierConfig(**values)
        if options.images:
            values |= {"train_size": options.images, "val_size": min(1000, options.images)}
        config = ClassifierConfig(**values)
        scale = full.num_train / config.num_train
        plain, mine = (
            scale * seconds(make(config, options.device, options.data_dir), options.device, options.times)
            for make in (ordinary, ours)
        )
        precision = choose_precision(config, options.device).name
        print(f"{name:16} {plain:9.2f} {mine:9.2f} {plain / mine:6.1f}  {precision:9}", end="", flush=True)
        if count > 1:
            each = scale * seconds_of_workers(config, options.data_dir, options.times, count)
            print(f"  {each:9.2f} {plain / each:6.1f}", end="")
        print(flush=True)


if __name__ == "__main__":
    main()
