"""The script of ../program without a line of ours: its metrics are read out of what it prints.

The study file says how, with a regular expression for each metric.
"""

import argparse
import os

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=".")
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    images, labels = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(images / 16, labels, random_state=0)
    w1 = rng.normal(0, 0.2, (64, args.hidden))
    w2 = rng.normal(0, 0.2, (args.hidden, 10))

    for epoch in range(1, args.epochs + 1):
        order = rng.permutation(len(x))
        for start in range(0, len(x), args.batch_size):
            batch = order[start : start + args.batch_size]
            hidden = np.maximum(x[batch] @ w1, 0)
            scores = hidden @ w2
            scores -= scores.max(axis=1, keepdims=True)
            probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            probabilities[np.arange(len(batch)), y[batch]] -= 1
            gradient = probabilities / len(batch)
            back = gradient @ w2.T * (hidden > 0)
            w2 -= args.lr * hidden.T @ gradient
            w1 -= args.lr * x[batch].T @ back
        accuracy = float(np.mean((np.maximum(x_val @ w1, 0) @ w2).argmax(axis=1) == y_val))
        print(f"epoch {epoch}: validation accuracy {accuracy:.4f}")

    np.savez(os.path.join(args.output, "model.npz"), w1=w1, w2=w2)


if __name__ == "__main__":
    main()
