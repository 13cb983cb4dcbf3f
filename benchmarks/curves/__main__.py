"""Makes the tables of learning curves, or goes on with them: ``python -m benchmarks.curves TABLE --data-dir DATA``.

Configurations are trained in the order of their sequence, some hundreds at a time, and each such part is added to the
table's file as soon as it is complete: a run that is ended loses at most the part that it was at, and the next one goes
on from there. The packed trainer trains the configurations of one batch size together, sorted by their size.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import curves
from benchmarks.curves import EPOCHS, SIZES, Curves
from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.packed.shape import cost
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.protocol import BuildOptions, EpochEnd, Run

SLOTS = 64
PARTS = {"digits_mlp": 256, "mnist_mlp": 64, "mnist_cnn": 16}
"""Table -> configurations of one part."""


def train_part(configs: list[ClassifierConfig], seeds: int, first: int, data_dir: Path | None) -> tuple[Any, Any, Any]:
    """Accuracies and losses of shape (configurations, seeds, EPOCHS), and processor seconds an epoch of each.

    ``first`` is the number of the first configuration, from which the seeds of the trainings follow.
    """
    accuracy = np.full((len(configs), seeds, EPOCHS), np.nan)
    loss, seconds = accuracy.copy(), np.zeros(len(configs))
    for batch_size in sorted({config.batch_size for config in configs}):
        alike = [index for index, config in enumerate(configs) if config.batch_size == batch_size]
        alike.sort(key=lambda index: cost(configs[index]))
        each = max(1, SLOTS // seeds)
        for start in range(0, len(alike), each):
            together = alike[start : start + each]
            began, num_epochs = time.process_time(), 0
            trainer = PackedTrainer(
                BuildOptions("cpu", len(together) * seeds, 1, tuple(configs[i] for i in together), data_dir),
                len(together) * seeds,
            )
            for index in together:
                for seed in range(seeds):
                    run = Run(seed=1000 * (first + index) + seed, data_dir=data_dir)
                    trainer.start((index, seed), configs[index], run)
            while events := trainer.advance():
                for event in events:
                    if not isinstance(event, EpochEnd):
                        raise RuntimeError(f"training ended otherwise than expected: {event}")
                    index, seed = event.key  # type: ignore[misc]
                    accuracy[index, seed, event.epoch - 1] = event.metrics["val_accuracy"]
                    loss[index, seed, event.epoch - 1] = event.metrics["val_loss"]
                    num_epochs += 1
            seconds[together] = (time.process_time() - began) / num_epochs
    return accuracy, loss, seconds


def make(table: str, size: int, data_dir: Path | None, folder: Path, seconds: float) -> Curves | None:
    """Makes parts until the table has ``size`` configurations or ``seconds`` are not enough for one more."""
    file = curves.study_file(table)
    seeds = SIZES[table][1]
    points = curves.draw_points(table, SIZES[table][0])
    made = curves.load(table, folder) if curves.file_of(table, folder).exists() else None
    if made is not None and not np.array_equal(made.points, points[: len(made)]):
        raise SystemExit(f"{curves.file_of(table, folder)} holds other configurations; move it away to begin anew")
    began, longest = time.monotonic(), 0.0
    while (done := 0 if made is None else len(made)) < size and time.monotonic() - began + longest <= seconds:
        part_began = time.monotonic()
        stop = min(size, done + PARTS[table])
        configs = [
            ClassifierConfig.model_validate({**file.fixed, **curves.configuration_at(file, point)})
            for point in points[done:stop]
        ]
        num_images = configs[0].val_size or DATASETS[configs[0].dataset].num_val
        accuracy, loss, cpu = train_part(configs, seeds, done, data_dir)
        with np.errstate(over="ignore"):
            part = Curves(
                points[done:stop],
                np.rint(accuracy * num_images).astype(np.uint16),
                loss.astype(np.float16),
                cpu.astype(np.float32),
                num_images,
            )
        made = part if made is None else _joined(made, part)
        curves.save(table, made, folder)
        longest = max(longest, time.monotonic() - part_began)
        print(f"{table}: {len(made)} of {size} configurations, {longest:.0f} s a part at most", flush=True)
    return made


def _joined(first: Curves, second: Curves) -> Curves:
    names = ("points", "num_correct", "val_loss", "cpu_seconds")
    arrays = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names}
    return Curves(**arrays, num_images=first.num_images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"default: all, {', '.join(SIZES)}")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST")
    parser.add_argument("--size", type=int, help="so many configurations; default: the whole table")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no part that would end later")
    parser.add_argument("--folder", type=Path, default=curves.FOLDER, help="where the files of curves are")
    options = parser.parse_args()
    if unknown := set(options.tables) - SIZES.keys():
        parser.error(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(SIZES)}")
    torch.set_num_threads(1)
    for table in options.tables or SIZES:
        size = min(options.size or SIZES[table][0], SIZES[table][0])
        make(table, size, options.data_dir, options.folder, options.seconds)


if __name__ == "__main__":
    main()
