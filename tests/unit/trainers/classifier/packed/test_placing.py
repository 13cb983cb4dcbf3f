"""Which trials share a pack."""

import random

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.packed import placing, shape
from hpo.trainers.classifier.packed.trainer import PackedTrainer
from hpo.trainers.protocol import BuildOptions, EpochEnd, Run
from tests.unit.packed_support import configuration


def mixed(count: int) -> list[ClassifierConfig]:
    """As `studies/digits_mlp.toml` draws them."""
    draw = random.Random(0)
    return [
        configuration(
            width_1=round(16 ** draw.uniform(1, 2)),
            width_2=round(16 * 8 ** draw.random()),
            batch_size=draw.choice([16, 32, 64]),
            train_size=None,
        )
        for _ in range(count)
    ]


def test_every_trial_has_one_group_that_holds_it() -> None:
    configs = [*mixed(40), *(configuration(optimizer="adam", width_1=width) for width in (8, 9, 200))]
    groups = placing.groups(configs)
    assert sorted(index for group in groups for index in group.members) == list(range(43))
    for group in groups:
        assert all(shape.holds(group.template, configs[index]) for index in group.members)
        assert group.steps == sum(placing.steps_of(configs[index]) for index in group.members)


def test_the_groups_of_many_trials_cost_less_than_one_pack_and_than_one_for_each_size() -> None:
    configs = mixed(96)
    groups = placing.groups(configs)
    found = sum(group.time for group in groups)
    single = placing.Group(tuple(range(96)), shape.padded(configs[0], tuple(configs)), sum(g.steps for g in groups))
    sizes: dict[ClassifierConfig, list[int]] = {}
    for index, config in enumerate(configs):
        sizes.setdefault(shape.padded(config), []).append(index)
    each = sum(
        placing.Group(tuple(members), template, sum(placing.steps_of(configs[i]) for i in members)).time
        for template, members in sizes.items()
    )
    assert 4 <= len(groups) <= 20
    assert found < 0.7 * single.time
    assert found < 0.7 * each


def test_equal_trials_share_one_pack() -> None:
    assert len(placing.groups([configuration(lr=0.01 * n) for n in range(1, 30)])) == 1


def test_packs_have_their_turns_side_by_side_with_the_same_bits() -> None:
    """Two threads, several packs: each trial's metrics are those of one thread."""
    configs = [config.model_copy(update={"epochs": 2, "train_size": 320}) for config in mixed(24)]
    results: list[dict[tuple[object, int], dict[str, float | None]]] = []
    for threads in (1, 2):
        trainer = PackedTrainer(BuildOptions(threads=threads), 24)
        for key, config in enumerate(configs):
            trainer.start(key, config, Run(seed=key))
        epochs: dict[tuple[object, int], dict[str, float | None]] = {}
        while events := trainer.advance():
            for event in events:
                assert isinstance(event, EpochEnd), event
                # The gradient's norm is the one metric whose last bits depend on the neighbours.
                skipped = ("seconds", "seconds_per_epoch", "grad_norm")
                metrics = {name: value for name, value in event.metrics.items() if name not in skipped}
                epochs[event.key, event.epoch] = metrics
        assert len(epochs) == 48
        results.append(epochs)
    assert results[0] == results[1]
