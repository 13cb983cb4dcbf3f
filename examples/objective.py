"""An Optuna objective with pruning, as it stands in Optuna's own examples: scikit-learn, one report an epoch.

    hpo launch objective.py:objective --trials 20 --sampler tpe --pruner median --workers 2

The study at the end is for ``python objective.py``; ``hpo launch`` reads its direction and ends the import there.
"""

import optuna
import sklearn.datasets
import sklearn.linear_model
import sklearn.model_selection


def objective(trial):
    data, target = sklearn.datasets.load_iris(return_X_y=True)
    split = sklearn.model_selection.train_test_split(data, target, test_size=0.25, random_state=0)
    train_x, valid_x, train_y, valid_y = split

    alpha = trial.suggest_float("alpha", 1e-5, 1e-1, log=True)
    clf = sklearn.linear_model.SGDClassifier(alpha=alpha, random_state=0)

    for step in range(20):
        clf.partial_fit(train_x, train_y, classes=[0, 1, 2])

        # Report the intermediate value, and end the trial if it is no good.
        trial.report(clf.score(valid_x, valid_y), step)
        if trial.should_prune():
            raise optuna.TrialPruned()

    return clf.score(valid_x, valid_y)


study = optuna.create_study(direction="maximize")
study.optimize(objective, n_trials=20)
print(study.best_trial)
