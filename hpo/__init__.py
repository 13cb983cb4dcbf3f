"""Hyperparameter optimization: exact budgets, many trials at once, comparisons that hold.

``hpo.launch("study.toml")``, ``hpo.load("name")``, and for a trainer of your own ``hpo.trainer``, ``hpo.Config`` and
``hpo.Run``. Names are imported when they are used, so that ``hpo --help`` and a trainer without torch start at once.
"""

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.api import launch, load, retry, train
    from hpo.errors import HPOError, StudyFileError
    from hpo.loaded_experiment import LoadedExperiment
    from hpo.settings import Settings
    from hpo.steer import enqueue, extend, pause, prune, resume, stop
    from hpo.trainers.classifier.extend import dataset, network
    from hpo.trainers.errors import Infeasible
    from hpo.trainers.generator import trainer
    from hpo.trainers.protocol import Config, Run
    from hpo.trainers.reporting import infeasible, report, should_stop
    from hpo.verbs import delete, status

_HOMES = {
    "Config": "hpo.trainers.protocol",
    "HPOError": "hpo.errors",
    "Infeasible": "hpo.trainers.errors",
    "LoadedExperiment": "hpo.loaded_experiment",
    "Run": "hpo.trainers.protocol",
    "Settings": "hpo.settings",
    "StudyFileError": "hpo.errors",
    "compare": "hpo.compare",
    "dataset": "hpo.trainers.classifier.extend",
    "delete": "hpo.verbs",
    "enqueue": "hpo.steer",
    "export": "hpo.export",
    "extend": "hpo.steer",
    "import_trials": "hpo.verbs",
    "infeasible": "hpo.trainers.reporting",
    "launch": "hpo.api",
    "list": "hpo.verbs:list_parts",
    "load": "hpo.api",
    "network": "hpo.trainers.classifier.extend",
    "pause": "hpo.steer",
    "prune": "hpo.steer",
    "report": "hpo.trainers.reporting",
    "resume": "hpo.steer",
    "retry": "hpo.api",
    "should_stop": "hpo.trainers.reporting",
    "status": "hpo.verbs",
    "stop": "hpo.steer",
    "train": "hpo.api",
    "trainer": "hpo.trainers.generator",
}
"""Public name -> where it is. ``compare`` and ``export`` are packages that are called as functions."""

# Without "list", which `from hpo import *` would put in the place of Python's own.
__all__ = [
    "Config",
    "HPOError",
    "Infeasible",
    "LoadedExperiment",
    "Run",
    "Settings",
    "StudyFileError",
    "compare",
    "dataset",
    "delete",
    "enqueue",
    "export",
    "extend",
    "import_trials",
    "infeasible",
    "launch",
    "load",
    "network",
    "pause",
    "prune",
    "report",
    "resume",
    "retry",
    "should_stop",
    "status",
    "stop",
    "train",
    "trainer",
]


def __dir__() -> Iterable[str]:
    return sorted([*_HOMES, *(name for name in globals() if name.startswith("__"))])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}")
    home, _, other = _HOMES[name].partition(":")
    module = importlib.import_module(home)
    return module if home == f"hpo.{name}" else getattr(module, other or name)
