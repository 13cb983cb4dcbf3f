"""Tables of learning curves: what is in the repository is readable, and a place of the cube has the same values."""

import numpy as np
import pytest

from benchmarks import curves
from benchmarks.curves import EPOCHS, SIZES

TABLES = [table for table in SIZES if curves.file_of(table).exists()]


def test_the_digits_are_there() -> None:
    assert "digits_mlp" in TABLES


@pytest.mark.parametrize("table", TABLES)
def test_a_table_holds_the_first_configurations_of_its_sequence(table: str) -> None:
    made = curves.load(table)
    size, seeds = SIZES[table]
    assert np.array_equal(made.points, curves.draw_points(table, size)[: len(made)])
    assert made.num_correct.shape == made.val_loss.shape == (len(made), seeds, EPOCHS)
    assert made.num_correct.max() <= made.num_images
    assert made.cpu_seconds.min() > 0
    # The best configuration learns its task, and the first epoch is worse than the last one.
    last = made.val_accuracy[:, :, -1].mean(axis=1)
    assert last.max() > 0.9
    assert made.val_accuracy[last.argmax(), :, 0].mean() < last.max()


@pytest.mark.parametrize("table", SIZES)
def test_values_and_places_are_inverse(table: str) -> None:
    file = curves.study_file(table)
    for point in curves.draw_points(table, 16):
        values = curves.configuration_at(file, point)
        assert all(file.space.parameters[name].contains(value) for name, value in values.items())
        assert curves.configuration_at(file, curves.point_of(file, values).astype(np.float32)) == pytest.approx(values)
