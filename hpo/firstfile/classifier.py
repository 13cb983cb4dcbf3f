"""A first study file for the image classifier: a data set and a network of the user's choice.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from hpo.errors import UsageError, near_miss
from hpo.firstfile.draft import Draft
from hpo.firstfile.entries import add_choices, add_range
from hpo.firstfile.trainer import add_fields
from hpo.trainers.registry import TRAINERS


def draft_for(dataset: str, network: str) -> Draft:
    """The draft. Raises UsageError for a data set or network that there is not, or that do not fit each other."""
    from hpo.trainers.classifier.datasets import DATASETS
    from hpo.trainers.classifier.networks import NETWORKS

    for what, name, table in (("data set", dataset, DATASETS), ("network", network, NETWORKS)):
        if name not in table:
            raise UsageError(f"there is no {what} {name!r}{near_miss(name, table)}; there are {', '.join(table)}")
    if not NETWORKS[network].takes(DATASETS[dataset].shape):
        fitting = [name for name, entry in NETWORKS.items() if entry.takes(DATASETS[dataset].shape)]
        raise UsageError(f"the network {network} cannot read {dataset}; those that can: {', '.join(fitting)}")
    config = TRAINERS["classifier"].config
    assert config is not None
    draft = Draft(name=f"{dataset}-{network}".replace("_", "-"), trainer="classifier", metric="val_accuracy")
    draft.samplers, draft.budget = ["random", "tpe"], {"trials": 40}
    draft.fixed = {"dataset": dataset, "network": network, "epochs": 10}
    add_range(
        draft, "lr", 0.001, 1.0, log=True, comment='of SGD with momentum beta; optimizer = "adam" in [fixed] for Adam'
    )
    add_range(draft, "beta", 0.8, 0.99, comment="momentum")
    add_range(draft, "weight_decay", 1e-6, 1e-2, log=True)
    add_choices(draft, "batch_size", [32, 64, 128])
    lines = add_fields(draft, NETWORKS[network].fields.model_fields, ())
    draft.extra += ["", f"# Further fields of {network}; all others: docs/reference/classifier.md", *lines]
    return draft
