"""A trainer that writes its curves for TensorBoard into its trial's folder.

hpo launch with_tensorboard.toml --trainers with_tensorboard.py --workers 2
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.tensorboard import SummaryWriter

import hpo


class Config(hpo.Config):
    lr: float = 0.1
    epochs: int = 5


@hpo.trainer("with_tensorboard", metrics={"loss": "minimize"})
def train(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    """Gradient descent on a quadratic function."""
    point = np.random.default_rng(run.seed).normal(size=4)
    writer = SummaryWriter(run.folder / "tensorboard" / f"{run.study}-{run.trial}".replace("/", "-"))
    for epoch in range(1, config.epochs + 1):
        point -= config.lr * 2 * point
        loss = float(point @ point)
        writer.add_scalar("loss", loss, epoch)
        yield {"loss": loss}
    writer.add_hparams({"lr": config.lr}, {"final_loss": loss}, run_name=".")
    writer.close()
