"""The script of the tutorial: --lr and --width, and `val acc: 0.93` after each epoch. It needs NumPy alone."""

import argparse

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--epochs", type=int, default=5)
args = parser.parse_args()

rng = np.random.default_rng(0)
x, x_val = rng.normal(size=(2, 512, 8))
y, y_val = (np.sign(points[:, 0] * points[:, 1] + 0.5 * points[:, 2]) for points in (x, x_val))
hidden = rng.normal(size=(8, args.width))
weights = np.zeros(args.width)

for epoch in range(1, args.epochs + 1):
    for start in range(0, len(x), 32):
        features = np.tanh(x[start : start + 32] @ hidden)
        weights -= args.lr * features.T @ (features @ weights - y[start : start + 32]) / 32
    accuracy = np.mean(np.sign(np.tanh(x_val @ hidden) @ weights) == y_val)
    print(f"epoch {epoch}, val acc: {accuracy:.3f}")
