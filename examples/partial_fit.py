"""scikit-learn's ``partial_fit`` as a trainer with epochs: a generator that yields after each pass over the data.

It resumes from its checkpoint and keeps its model:

    hpo launch partial_fit.toml --trainers partial_fit.py
"""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

import hpo


class Config(hpo.Config):
    alpha: float = 1e-4
    eta0: float = 0.1
    epochs: int = 5


@hpo.trainer("partial_fit", metrics={"val_accuracy": "maximize"})
def train(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    """A linear classifier of handwritten digits."""
    data, target = load_digits(return_X_y=True)
    train_x, val_x, train_y, val_y = train_test_split(data / 16, target, random_state=0)
    model = SGDClassifier(alpha=config.alpha, learning_rate="constant", eta0=config.eta0, random_state=run.seed)
    if run.checkpoint is not None:
        model.partial_fit(train_x[:10], train_y[:10], classes=range(10))
        model.coef_, model.intercept_ = np.array(run.checkpoint["coef"]), np.array(run.checkpoint["intercept"])
    for epoch in range(run.start_epoch, config.epochs):
        order = np.random.default_rng([run.seed, epoch]).permutation(len(train_x))
        model.partial_fit(train_x[order], train_y[order], classes=range(10))
        run.save({"coef": model.coef_.tolist(), "intercept": model.intercept_.tolist()})
        yield {"val_accuracy": model.score(val_x, val_y)}
