"""How many workers the local launcher starts on a CPU, and with how many threads."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from hpo.launchers import local
from hpo.launchers.options import LaunchOptions
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
    memory = SimpleNamespace(available=int(free_gib * 2**30))
    monkeypatch.setattr(local, "usable_cores", lambda: cores)
    monkeypatch.setattr(local, "gpu_indices", list)
    monkeypatch.setattr(local.psutil, "virtual_memory", lambda: memory)
    places = local._places(Settings(home=tmp_path), LaunchOptions(workers=workers, gpus=None))
    assert [int(place.environment["HPO_THREADS"]) for place in places] == expected
    assert {place.environment["HPO_DEVICE"] for place in places} == {"cpu"}
