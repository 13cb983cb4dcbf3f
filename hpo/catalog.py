"""What can be named in a study file or on the command line, a line each: ``hpo list`` and ``hpo.list``.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from hpo.launchers.registry import LAUNCHERS
from hpo.search.pruner_registry import PRUNERS
from hpo.search.sampler_registry import SAMPLERS
from hpo.trainers.loading import load_trainers
from hpo.trainers.registry import TRAINERS


def parts(trainer_modules: str = "") -> dict[str, dict[str, str]]:
    """Kind of part -> name -> one line, for ``hpo list``."""
    load_trainers(trainer_modules)
    from hpo.trainers.classifier.datasets import DATASETS
    from hpo.trainers.classifier.networks import NETWORKS

    return {
        "trainers": {name: entry.description for name, entry in TRAINERS.items()},
        "networks": {name: entry.description for name, entry in NETWORKS.items()},
        "data sets": {name: entry.description for name, entry in DATASETS.items()},
        "samplers": {name: entry.description for name, entry in SAMPLERS.items()},
        "pruners": {name: entry.description for name, entry in PRUNERS.items()},
        "launchers": {name: entry.description for name, entry in LAUNCHERS.items()},
    }
