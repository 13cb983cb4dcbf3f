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


def sizes() -> dict[str, dict[str, int]]:
    """Network -> data set -> number of parameters at the default configuration; only the pairs that fit each other.

    Empty without PyTorch. The networks are made on torch's ``meta`` device, which holds no numbers.
    """
    try:
        import torch
    except ImportError:
        return {}
    from hpo.trainers.classifier.datasets import DATASETS
    from hpo.trainers.classifier.networks import NETWORKS
    from hpo.trainers.registry import TRAINERS

    model = TRAINERS["classifier"].config
    found: dict[str, dict[str, int]] = {}
    for name, network in NETWORKS.items():
        for dataset, entry in DATASETS.items():
            if model is None or not network.takes(entry.shape):
                continue
            config = model.model_validate({"network": name, "dataset": dataset})
            with torch.device("meta"):
                built = network.build(config, entry.shape, entry.num_classes)
            found.setdefault(name, {})[dataset] = sum(parameter.numel() for parameter in built.parameters())
    return found
