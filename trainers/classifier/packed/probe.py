"""How many slots pay, and threads for a trial alone: a short measurement on the study's own shapes.

It is made before a worker's first trial.

Rates are in images a second, over all trials that train at once; a trial-epoch is as many images as the training set
has. Only steps are timed: a packed evaluation gains as much as a packed step, or more.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

import torch

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed import shape
from hpo.trainers.classifier.packed.memory import is_out_of_memory, most_slots
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.classifier.training import Training
from hpo.trainers.protocol import BuildOptions, Failed, Run

log = logging.getLogger("hpo")

SIZES = {"cpu": (4, 16, 64), "cuda": (4, 16, 64, 256)}
SECONDS = 0.05
"""How long one pack, or one configuration alone, is measured, after a first run."""
LIMIT_SECONDS = 2.0
"""No further size is tried after that long."""
SINGLE_STEPS = 16
"""Updates of one measurement of a trial alone; it begins with the epoch's order, which must not weigh much."""
GAIN = 1.25
"""A size is worth it where it is so many times as fast as the best smaller one."""


def choose(options: BuildOptions) -> tuple[int, int]:
    """The number of slots with the highest rate, and the threads to use with it.

    One slot where packing does not pay or is not possible, or where it is given; its threads are chosen if the options
    leave them open. Packs use all threads, several packs side by side.
    """
    configs = [config for config in options.configs if shape.why_not(config) is None]
    is_open = options.choose_threads and options.device == "cpu"
    if options.slots == 1:
        return 1, _fastest_threads(options, list(options.configs))[0] if is_open else options.threads
    if not configs or len(configs) < len(options.configs):
        why = next((shape.why_not(config) for config in options.configs if shape.why_not(config)), "no configuration")
        log.info("trials train one at a time: %s", why)
        return 1, options.threads
    threads, single = _fastest_threads(options, configs) if is_open else (options.threads, 0.0)
    rates = {1: single or _single_rate(options, configs, threads)}
    most = most_slots(options) or 1
    began, tried = time.perf_counter(), list[int]()
    # The largest first: what is left out for want of time is what gains least.
    for slots in sorted(SIZES.get(options.device.partition(":")[0], SIZES["cuda"]), reverse=True):
        if slots > most:
            continue
        is_late = time.perf_counter() - began > LIMIT_SECONDS
        if tried and (is_late or rates[tried[-1]] < GAIN * rates[1]):
            break
        try:
            rates[slots] = _packed_rate(options, configs, slots)
            tried.append(slots)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if options.device.startswith("cuda"):
            # What a try held would count as taken for the next one, and for the worker's own slots.
            torch.cuda.empty_cache()
    best = 1
    for slots in sorted(rates):
        if rates[slots] > GAIN * rates[best]:
            best = slots
    images = configs[0].num_train
    figures = ", ".join(f"{slots}: {rate / images:.3g}" for slots, rate in sorted(rates.items()))
    log.info("%d slots: trial-epochs a second by number of slots: %s", best, figures)
    return best, threads if best == 1 else options.threads


def _fastest_threads(options: BuildOptions, configs: list[ClassifierConfig]) -> tuple[int, float]:
    """One thread or all of them for trials one at a time, and their rate."""
    rates = {threads: _single_rate(options, configs, threads) for threads in {1, max(1, options.threads)}}
    threads = max(rates, key=rates.__getitem__)
    if len(rates) > 1:
        log.info("%d threads for a trial alone", threads)
    return threads, rates[threads]


def _single_rate(options: BuildOptions, configs: list[ClassifierConfig], threads: int) -> float:
    """Images a second, one configuration after the other."""
    torch.set_num_threads(max(1, threads))
    seconds = images = 0.0
    for config in configs[:4]:
        training = Training(config, _run(options, 0))
        lrs = [config.lr] * min(SINGLE_STEPS, training.num_steps)
        seconds += _seconds(options, threads, partial(training.train_steps, lrs))
        images += config.batch_size * len(lrs)
    return images / seconds


def _packed_rate(options: BuildOptions, configs: list[ClassifierConfig], slots: int) -> float:
    """Images a second with all slots taken by the configurations in turn, a step of each pack after the other."""
    trainer = PackedTrainer(options, slots)
    for number in range(slots):
        trainer.start(number, configs[number % len(configs)], _run(options, number))
    seconds = images = 0.0
    side_by_side = 1
    for event in trainer.place():
        raise event.error if isinstance(event, Failed) else MemoryError("no room")
    for pack in trainer.packs:
        seconds += _seconds(options, pack.threads, partial(pack.advance, 1))
        images += sum(slot.config.batch_size for slot in pack.slots)
    if all(pack.threads == 1 for pack in trainer.packs) and options.device == "cpu":
        side_by_side = min(options.threads, len(trainer.packs))
    return side_by_side * images / seconds


def _run(options: BuildOptions, seed: int) -> Run:
    return Run(device=options.device, seed=seed, data_dir=options.data_dir, download=options.download)


def _seconds(options: BuildOptions, threads: int, call: Callable[[], object]) -> float:
    """The shortest of several calls after a first one.

    On a CPU this is the processor's time: other processes that share the cores would hide what packing gains.
    """
    on_cpu = options.device == "cpu"

    def now() -> float:
        if on_cpu:
            return time.process_time() / threads
        torch.cuda.synchronize(options.device)
        return time.perf_counter()

    call()
    times: list[float] = []
    while len(times) < 2 or (sum(times) < SECONDS and len(times) < 100):
        started = now()
        call()
        times.append(now() - started)
    return min(times)
