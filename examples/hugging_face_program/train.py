"""A Hugging Face script with argparse; the lines with ReportCallback report, end and resume a trial of study.toml."""

import argparse
import os

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


parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

trainer = Trainer(
    model_init=lambda: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=1, n_heads=2, num_labels=2)
    ),
    args=TrainingArguments(
        output_dir=os.environ.get("HPO_CHECKPOINT_DIR", "out"),
        num_train_epochs=args.epochs,
        learning_rate=args.lr,
        per_device_train_batch_size=16,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        seed=args.seed,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    ),
    train_dataset=Sequences(0),
    eval_dataset=Sequences(1),
    callbacks=[ReportCallback("eval_loss")],
)
trainer.train(resume_from_checkpoint=ReportCallback.latest_checkpoint())
