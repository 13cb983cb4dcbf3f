"""A trainer that only sleeps: what is left of a trial's time is the service's own. Imports no torch.

Its value is a function of its parameters, seed and epoch alone, so that everything recorded can be checked. Where
``SLEEPING_LOG`` names a file it notes there what it really did, an epoch a line.
"""

import json
import math
import os
import time
from collections.abc import Iterator

import pydantic

import hpo


class Config(hpo.Config):
    lr: float = pydantic.Field(0.1, gt=0, le=1)
    beta: float = pydantic.Field(0.9, ge=0, lt=1)
    width_1: int = pydantic.Field(512, ge=1)
    width_2: int = pydantic.Field(128, ge=1)
    weight_decay: float = pydantic.Field(1e-4, ge=0)
    batch_size: int = pydantic.Field(128, ge=1)
    scheduler: str = "constant"
    epochs: int = pydantic.Field(8, ge=1)
    epoch_seconds: float = pydantic.Field(0.05, ge=0)
    constant: bool = False


def value_of(config: Config, seed: int, epoch: int) -> float:
    """What the trainer yields after an epoch: better towards lr 0.1 and beta 0.9, and with time."""
    if config.constant:
        return 0.5
    distance = abs(math.log10(config.lr) + 1) + abs(config.beta - 0.9) * 5
    return math.exp(-distance) * (1 - 0.5**epoch) + (seed % 1000) * 1e-6


@hpo.trainer("sleeping", metrics={"value": "maximize"})
def sleeping(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    """Sleeps through its epochs."""
    log = os.environ.get("SLEEPING_LOG")
    for epoch in range(run.start_epoch + 1, config.epochs + 1):
        started = time.time()
        time.sleep(config.epoch_seconds)
        value = value_of(config, run.seed, epoch)
        run.save({"epoch": epoch, "value": value})
        if log:
            note = {"pid": os.getpid(), "seed": run.seed, "epoch": epoch, "value": value}
            note |= {"started": started, "ended": time.time()}
            # One write to a file opened for appending is one line, whoever else writes.
            with open(log, "ab", buffering=0) as file:
                file.write(json.dumps(note).encode() + b"\n")
        yield {"value": value}


SPACE = """
[space]
lr = { low = 1e-3, high = 1.0, log = true }
beta = { low = 0.8, high = 0.99 }
width_1 = { low = 256, high = 1024 }
width_2 = { low = 64, high = 256 }
weight_decay = { low = 1e-6, high = 1e-2, log = true }
batch_size = [32, 64, 128, 256]
scheduler = ["constant", "step", "cosine"]
"""
