"""A Lightning module as an Optuna objective; the two lines for the search are the callback and its import.

hpo launch lightning_module.py:objective --trials 10 --direction minimize --pruner median
"""

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


def objective(trial):
    model = Regression(trial.suggest_int("width", 4, 32), trial.suggest_float("lr", 1e-4, 1e-1, log=True))
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ReportCallback("val_loss", trial)],
    )
    trainer.fit(model, loader(0), loader(1))
    return trainer.callback_metrics["val_loss"].item()
