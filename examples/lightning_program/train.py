"""A Lightning script with argparse; the lines with ReportCallback report, end and resume a trial of study.toml."""

import argparse

import lightning
import torch

from hpo.integrations.lightning import ReportCallback


class Regression(lightning.LightningModule):
    def __init__(self, width, lr):
        super().__init__()
        self.lr = lr
        self.network = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

    def loss(self, batch):
        inputs, targets = batch
        return (self.network(inputs) - targets).square().mean()

    def training_step(self, batch, index):
        return self.loss(batch)

    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def loader(seed):
    inputs = torch.randn(128, 2, generator=torch.Generator().manual_seed(seed))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True)), 32)


parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--width", type=int, default=16)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

lightning.seed_everything(args.seed, verbose=False)
trainer = lightning.Trainer(
    max_epochs=args.epochs,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[ReportCallback("val_loss")],
)
trainer.fit(Regression(args.width, args.lr), loader(0), loader(1), ckpt_path=ReportCallback.latest_checkpoint())
