"""A Hydra script as it is, without a line of ours: study.toml reads the accuracy that it prints."""

import hydra
import numpy as np
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    images, labels = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(images / 16, labels, random_state=0)
    model = SGDClassifier(
        loss=config.model.loss,
        alpha=config.model.alpha,
        learning_rate="constant",
        eta0=config.optimizer.lr,
        random_state=config.seed,
    )
    for epoch in range(1, config.epochs + 1):
        order = np.random.default_rng([config.seed, epoch]).permutation(len(x))
        model.partial_fit(x[order], y[order], classes=range(10))
        print(f"epoch {epoch}: accuracy {model.score(x_val, y_val):.4f}")


if __name__ == "__main__":
    main()
