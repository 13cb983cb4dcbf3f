"""How many workers the local launcher starts on a CPU, and with how many threads."""

from pathlib import Path

import pytest

from hpo.launchers import local
from hpo.launchers.registry import LocalOptions
from hpo.settings import Settings


@pytest.mark.parametrize(
    ("workers", "cores", "free_gib", "expected"),
    [
        (None, 8, 100.0, [1] * 8),
        (None, 8, 3.5, [2] * 3),
        (None, 2, 0.1, [2]),
        (2, 8, 100.0, [4] * 2),
        (5, 2, 100.0, [1] * 5),
    ],
)
def test_workers_and_their_threads(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    workers: int | None,
    cores: int,
    free_gib: float,
    expected: list[int],
) -> None:
    monkeypatch.setattr(local, "usable_cores", lambda: cores)
    monkeypatch.setattr(local, "available_memory", lambda: int(free_gib * 2**30))
    slots = local.plan_slots("e", Settings(home=tmp_path), LocalOptions(workers=workers, gpus="none"))
    assert [int(slot.environment["HPO_THREADS"]) for slot in slots] == expected
    assert {slot.environment["HPO_DEVICE"] for slot in slots} == {"cpu"}
