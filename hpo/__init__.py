"""Hyperparameter optimization: exact budgets, many trials at once, comparisons that hold.

``hpo.launch("study.toml")``, ``hpo.load("name")``, and for a trainer of your own ``hpo.trainer``, ``hpo.Config`` and
``hpo.Run``. Names are imported when they are used, so that ``hpo --help`` and a trainer without torch start at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.api import LoadedExperiment, launch, load, train
    from hpo.errors import HPOError, StudyFileError
    from hpo.settings import Settings
    from hpo.trainers.classifier.extend import dataset, network
    from hpo.trainers.errors import Infeasible
    from hpo.trainers.generator import trainer
    from hpo.trainers.protocol import Config, Run
    from hpo.trainers.reporting import report, should_stop

__all__ = [
    "Config",
    "HPOError",
    "Infeasible",
    "LoadedExperiment",
    "Run",
    "Settings",
    "StudyFileError",
    "dataset",
    "launch",
    "load",
    "network",
    "report",
    "should_stop",
    "train",
    "trainer",
]

_HOMES = {
    "Config": "hpo.trainers.protocol",
    "HPOError": "hpo.errors",
    "Infeasible": "hpo.trainers.errors",
    "LoadedExperiment": "hpo.api",
    "Run": "hpo.trainers.protocol",
    "Settings": "hpo.settings",
    "StudyFileError": "hpo.errors",
    "dataset": "hpo.trainers.classifier.extend",
    "launch": "hpo.api",
    "load": "hpo.api",
    "network": "hpo.trainers.classifier.extend",
    "report": "hpo.trainers.reporting",
    "should_stop": "hpo.trainers.reporting",
    "train": "hpo.api",
    "trainer": "hpo.trainers.generator",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
