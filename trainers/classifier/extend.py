"""Networks and data sets of a user's own for the trainer ``classifier``: ``@hpo.network`` and ``@hpo.dataset``.

A module that uses them is named with ``--trainers`` as one with a trainer is. The fields that a network reads become
fields of the classifier's configuration, so a study file searches and checks them like the others.
"""

from collections.abc import Callable
from typing import Any

from hpo.trainers.classifier import dataset_table, network_table
from hpo.trainers.classifier.dataset_table import DATASETS, Read
from hpo.trainers.classifier.entry import register_additions
from hpo.trainers.classifier.network_table import NETWORKS, Build, Inputs


def network(
    name: str, *, inputs: Inputs = "any", packed: bool = False, widths: tuple[str, ...] = ()
) -> Callable[[Build], Build]:
    """Adds a network to the classifier: decorates ``build(config, shape, num_classes) -> nn.Module``.

    Args:
        name: what a study file calls it: ``network = "NAME"``.
        inputs: the shapes that it takes: "image" (channels, height, width), "vector" (features,), "any".
        packed: whether several trials may train as one batched computation. Then the network consists of
            ``nn.Sequential``, ``nn.Linear``, ``nn.Conv2d``, ``nn.BatchNorm1d``, ``nn.BatchNorm2d``, ``nn.Flatten``,
            ``nn.MaxPool2d``, ``nn.AdaptiveAvgPool2d``, activations, and `hpo.trainers.classifier.regularizers.Dropout`.
        widths: names of fields that are numbers of units or channels, for packs of trials of different sizes.

    ``config`` is annotated with a class derived from ``hpo.Config``: the fields that the network reads, with bounds,
    defaults and descriptions. The network must take its random numbers from PyTorch's layers only, so that a trial is
    the same wherever it is trained.

    Raises:
        TrainerError: if the name is taken, the annotation is missing, ``widths`` names no field, or a field is
            declared with another type, bounds or default elsewhere.
    """
    add = network_table.network(name, inputs=inputs, packed=packed, widths=widths)

    def decorate(build: Build) -> Build:
        before = NETWORKS.get(name)
        add(build)
        try:
            register_additions()
        except Exception:
            _restore(NETWORKS, name, before)
            raise
        return build

    return decorate


def dataset(
    name: str,
    *,
    shape: tuple[int, ...],
    num_classes: int,
    sizes: tuple[int, int, int],
    scale: float | None = None,
    folder: str | None = None,
    files: tuple[tuple[str, str], ...] = (),
    class_names: tuple[str, ...] = (),
) -> Callable[[Read], Read]:
    """Adds a data set to the classifier: decorates ``read(part, folder) -> (inputs, labels)``, NumPy arrays.

    ``part`` is "train", "val" or "test". The first n inputs of a split must be a fair sample of it
    (``train_size`` takes them), and the same in every process.

    Args:
        name: what a study file calls it: ``dataset = "NAME"``.
        shape: of one input: (channels, height, width) for images, (features,) for vectors.
        num_classes: labels are 0 to num_classes - 1.
        sizes: how many inputs the training, validation and test splits have.
        scale: the value that counts as 1 under ``normalize = "unit"``; None takes the inputs as they are.
        folder: below the data folder (``--data-dir``), with ``files``; without it ``read`` is given the data folder.
        files: name in the folder and "sha256:..." or "md5:..." of its content, checked before ``read`` is called.
        class_names: what each label stands for, for the pictures of ``hpo train --diagnose``.

    Raises:
        TrainerError: if the name is taken or the arguments do not fit each other.
    """
    add = dataset_table.dataset(
        name,
        shape=shape,
        num_classes=num_classes,
        sizes=sizes,
        scale=scale,
        folder=folder,
        files=files,
        class_names=class_names,
    )

    def decorate(read: Read) -> Read:
        before = DATASETS.get(name)
        add(read)
        try:
            register_additions()
        except Exception:
            _restore(DATASETS, name, before)
            raise
        return read

    return decorate


def _restore(table: dict[str, Any], name: str, before: Any) -> None:
    if before is None:
        table.pop(name, None)
    else:
        table[name] = before
