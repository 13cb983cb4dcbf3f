"""How many workers the local launcher starts on a CPU, and with how many threads."""

from pathlib import Path

import pytest

from hpo.errors import UsageError
from hpo.launchers import local
from hpo.launchers.launch import check_launch
from hpo.launchers.registry import LocalOptions, make_options
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
    # Threads of a worker that has the cores to itself stay awake between two steps of a small network.
    passive = {slot.environment.get("OMP_WAIT_POLICY") for slot in slots}
    assert passive == ({None} if len(slots) == 1 else {"PASSIVE"})


def test_workers_know_with_how_many_they_share_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "gpu_indices", lambda: ["0", "1"])
    slots = local.plan_slots("e", Settings(home=tmp_path), LocalOptions(workers=3))
    shares = [(slot.environment["CUDA_VISIBLE_DEVICES"], slot.environment["HPO_DEVICE_WORKERS"]) for slot in slots]
    assert shares == [("0", "2"), ("1", "1"), ("0", "2")]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ({}, "PCI_BUS_ID"),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, "FASTEST_FIRST"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, None),
    ],
)
def test_numbers_of_gpus_are_those_of_nvidia_smi(
    given: dict[str, str], order: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If a person has chosen an order or devices, their numbers mean what they meant to that person."""
    monkeypatch.setattr(local, "gpu_indices", lambda: ["1"])
    for name in ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    (slot,) = local.plan_slots("e", Settings(home=tmp_path), LocalOptions())
    assert slot.environment.get("CUDA_DEVICE_ORDER") == order
    assert slot.environment["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(
    ("gpus", "visible", "message"),
    [
        ("7", "0,1", "there is no GPU 7 here; there are 0, 1"),
        ("0", "", "there is no GPU 0 here; there is none"),
        ("0,3,9", "0,1", "there is no GPU 3, 9 here; there are 0, 1"),
        ("MIG-41b3", "0", "there is no GPU MIG-41b3 here; there is 0"),
        ("MIG-41b3", "", "there is no GPU MIG-41b3 here; there is none"),
        ("gpu0", "0,1", "there is no GPU gpu0 here; there are 0, 1"),
        ("", "0", "--gpus is ''"),
        (",", "0", "--gpus is ','"),
    ],
)
@pytest.mark.parametrize("launcher", ["local", "inline"])
def test_gpus_that_are_not_there(
    launcher: str, gpus: str, visible: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if launcher == "inline" and "," in gpus.strip(","):
        return  # it takes one GPU
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(UsageError) as caught:
        check_launch(launcher, settings, make_options(launcher, gpus=gpus))
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "home").exists()


def test_workers_get_as_many_gpus_as_a_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "gpu_indices", lambda: ["0", "1", "2", "3", "4"])
    slots = local.plan_slots("e", Settings(home=tmp_path), LocalOptions(), 2)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0,1", "2,3"]
    assert {slot.environment["HPO_DEVICE"] for slot in slots} == {"cuda:0"}
    with pytest.raises(UsageError, match="gpus_per_trial = 6, but there are 5 GPUs: 0, 1, 2, 3, 4"):
        local.plan_slots("e", Settings(home=tmp_path), LocalOptions(), 6)
    monkeypatch.setattr(local, "usable_cores", lambda: 4)
    monkeypatch.setattr(local, "available_memory", lambda: 100 * 2**30)
    assert len(local.plan_slots("e", Settings(home=tmp_path), LocalOptions(gpus="none"), 2)) == 2
