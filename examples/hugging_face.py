"""A Hugging Face ``Trainer`` as an Optuna objective: a tiny model made from a configuration, nothing is downloaded.

hpo launch hugging_face.py:objective --trials 10 --direction minimize --pruner median
"""

import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification, Trainer, TrainingArguments

from hpo.integrations.transformers import ReportCallback


class Sequences(torch.utils.data.Dataset):
    """Sequences of ten tokens; the class is whether the first token is large."""

    def __init__(self, seed):
        self.tokens = torch.randint(0, 50, (64, 10), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": int(self.tokens[index][0] >= 25)}


def objective(trial):
    config = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=1, n_heads=2, num_labels=2)
    arguments = TrainingArguments(
        output_dir=f"out-{trial.number}",
        num_train_epochs=2,
        learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        per_device_train_batch_size=16,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        model=DistilBertForSequenceClassification(config),
        args=arguments,
        train_dataset=Sequences(0),
        eval_dataset=Sequences(1),
        callbacks=[ReportCallback("eval_loss", trial)],
    )
    trainer.train()
    return trainer.evaluate()["eval_loss"]
