"""The launchers' options: one class a launcher, values read once, mistakes with the option's name."""

import pytest

from hpo.errors import UsageError
from hpo.launchers.registry import (
    LAUNCHERS,
    InlineOptions,
    LaunchOptions,
    LocalOptions,
    RayOptions,
    make_options,
    parse_gpus,
)


def test_each_launcher_has_its_own() -> None:
    assert make_options("local") == LocalOptions(workers=None, max_restarts=10, gpus="all", per_gpu=1)
    assert make_options("inline", gpus="none") == InlineOptions(gpus="none")
    assert make_options("ray", ray_address="ray://there:1").ray_address == "ray://there:1"
    assert all(issubclass(entry.options, LaunchOptions) for entry in LAUNCHERS.values())
    assert not hasattr(LocalOptions(), "ray_address")


def test_none_is_no_wish() -> None:
    assert make_options("local", workers=None, gpus=None, per_gpu=None) == LocalOptions()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", "all"),
        ("none", "none"),
        ("0,1", ("0", "1")),
        (" 2 ", ("2",)),
        (3, ("3",)),
        ([0, 1], ("0", "1")),
        (("GPU-1", "MIG-2"), ("GPU-1", "MIG-2")),
    ],
)
def test_gpus(value: object, expected: object) -> None:
    assert parse_gpus(value) == expected
    assert LocalOptions(gpus=value).gpus == expected
    assert RayOptions(gpus=value).gpus == expected


@pytest.mark.parametrize("value", ["", " ", "0,", ",", (), [], True, None, 1.5, ["", "1"]])
def test_gpus_that_name_none(value: object) -> None:
    with pytest.raises(UsageError, match=r"--gpus is .*: give the numbers or UUIDs of GPUs, .* or 'none' for the CPU"):
        parse_gpus(value)


def test_a_gpu_twice() -> None:
    with pytest.raises(UsageError, match="--gpus names a GPU twice: 0,0; --per-gpu 2 starts two workers on each"):
        parse_gpus("0,0")


@pytest.mark.parametrize(
    ("launcher", "options", "message"),
    [
        ("local", {"workers": 0}, "--workers must be at least 1, not 0"),
        ("local", {"per_gpu": 0}, "--per-gpu must be at least 1, not 0"),
        ("ray", {"max_restarts": -1}, "--max-restarts must be at least 0, not -1"),
        ("local", {"ray_address": "x:1"}, "the launcher local has no option ray_address; it is one of ray"),
        ("local", {"worker": 2}, r"the launcher local has no option worker \(did you mean 'workers'\?\)"),
        ("locl", {}, r"--launcher must be one of local, .*, not 'locl' \(did you mean 'local'\?\)"),
    ],
)
def test_mistakes(launcher: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_options(launcher, **options)
