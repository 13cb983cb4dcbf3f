"""Which waiting trials share a pack: padding a small trial costs arithmetic, another pack costs another step.

The time of a step is ``OVERHEAD`` and what its slots compute. In a pack of n trials each bears an n-th of the first
and computes the pack's template whatever its own size. Trials are ordered by batch and size, each kind for itself, and
neighbours are merged while that lowers the sum over all trials.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed import shape
from hpo.trainers.classifier.randomness import num_steps

OVERHEAD = 4_000_000
"""What a step of a pack costs a CPU beside its arithmetic, in `packed.shape.cost`: 0.3 ms, against 72 us for a million
(one core of an EPYC with AVX512)."""


@dataclass(frozen=True)
class Group:
    """Trials for one new pack.

    Attributes:
        members: their indices.
        template: sizes that hold all of them.
        steps: updates of one epoch of all of them.
    """

    members: tuple[int, ...]
    template: ClassifierConfig
    steps: int

    @property
    def time(self) -> float:
        """Of an epoch of each member."""
        return self.steps * (OVERHEAD / len(self.members) + shape.cost(self.template))

    def merged(self, other: "Group") -> "Group":
        return Group(
            self.members + other.members, shape.padded(self.template, (other.template,)), self.steps + other.steps
        )


def groups(configs: Sequence[ClassifierConfig]) -> list[Group]:
    """The configurations in groups, a pack for each."""
    by_kind: dict[ClassifierConfig, list[int]] = {}
    for index, config in enumerate(configs):
        by_kind.setdefault(shape.agreed(config), []).append(index)
    return [group for members in by_kind.values() for group in _merged(configs, members)]


def _merged(configs: Sequence[ClassifierConfig], members: Iterable[int]) -> list[Group]:
    by_template: dict[ClassifierConfig, Group] = {}
    for index in members:
        config = configs[index]
        own = Group((index,), shape.padded(config), steps_of(config))
        same = by_template.get(own.template)
        by_template[own.template] = own if same is None else same.merged(own)
    found = sorted(by_template.values(), key=lambda group: (group.template.batch_size, shape.cost(group.template)))
    pairs = [first.merged(second) for first, second in itertools.pairwise(found)]
    while pairs:
        gains = [found[i].time + found[i + 1].time - pair.time for i, pair in enumerate(pairs)]
        at = max(range(len(pairs)), key=gains.__getitem__)
        if gains[at] <= 0:
            break
        found[at : at + 2] = [pairs[at]]
        del pairs[at]
        if at > 0:
            pairs[at - 1] = found[at - 1].merged(found[at])
        if at < len(pairs):
            pairs[at] = found[at].merged(found[at + 1])
    return found


def steps_of(config: ClassifierConfig) -> int:
    """Updates of one epoch."""
    return num_steps(config.num_train, config.batch_size)


def pays(template: ClassifierConfig, config: ClassifierConfig, neighbours: float) -> bool:
    """Whether a place in a pack of the template costs a trial less than its part of another pack of its own size.

    ``neighbours``: how many trials would share that pack.
    """
    return shape.cost(template) - shape.cost(shape.padded(config)) <= OVERHEAD / max(1.0, neighbours)
