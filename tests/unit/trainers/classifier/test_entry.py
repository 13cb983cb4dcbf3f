"""What the classifier says if this machine lacks something."""

import importlib.util
from typing import Any

import pytest
import torch

from hpo.trainers.classifier import entry
from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import BuildOptions
from hpo.trainers.registry import TRAINERS


def build(device: str) -> Any:
    return TRAINERS["classifier"].build(BuildOptions(device=device, slots=1))


def test_torch_without_cuda_on_a_machine_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(TrainerError, match=r"built without CUDA: install a build .* or give --gpus none"):
        build("cuda:0")
    assert build("cpu").capacity == 1


def test_torch_with_cuda_and_no_usable_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainerError, match=r"\(CUDA 12.8\) finds no usable GPU for cuda:0: the driver"):
        build("cuda:0")


def test_one_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    with pytest.raises(TrainerError) as error:
        entry.check_installed()
    assert str(error.value) == (
        "trainer 'classifier' needs scikit-learn, which is not installed: pip install 'hpo-service[classifier]'"
    )
