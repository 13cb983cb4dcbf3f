"""In which number format a configuration trains."""

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hpo.trainers.classifier.datasets import DATASETS

if TYPE_CHECKING:
    from hpo.trainers.classifier.config import ClassifierConfig


@dataclass(frozen=True)
class Precision:
    """``data`` is the dtype of the resident inputs, ``weights`` of the parameters, ``autocast`` of the computation."""

    name: str
    data: torch.dtype
    weights: torch.dtype
    autocast: torch.dtype | None


SMALL_INPUTS = 64
"""Numbers of an input up to which networks are so small that the conversions cost as much as they save."""

PRECISIONS: dict[str, Precision] = {
    "fp32": Precision("fp32", torch.float32, torch.float32, None),
    "bf16": Precision("bf16", torch.bfloat16, torch.float32, torch.bfloat16),
    "fp64": Precision("fp64", torch.float64, torch.float64, None),
}


def choose_precision(config: "ClassifierConfig", device: str) -> Precision:
    """What ``config.precision`` means on the device: ``auto`` is bf16 where the device computes it natively.

    Not for inputs as small as those of ``digits`` and ``line``.
    Measured on one core of an EPYC with AVX512-BF16, fp32 against bf16: MLP (843, 323) 3.0 and 1.1 s an epoch, cnn
    7.5 and 4.6 s, squeeze_expand 9.4 and 7.0 s, resnet18 on 256 images 5.5 and 2.8 s.
    """
    if config.precision != "auto":
        return PRECISIONS[config.precision]
    if math.prod(DATASETS[config.dataset].shape) <= SMALL_INPUTS:
        return PRECISIONS["fp32"]
    if torch.device(device).type == "cuda":
        return PRECISIONS["bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"]
    return PRECISIONS["bf16" if _cpu_has_bf16() else "fp32"]


def _cpu_has_bf16() -> bool:
    # Private, and not there on every platform and version.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def set_determinism(deterministic: bool, device: str) -> None:
    """Makes this process choose kernels on a GPU that give the same bits each time, or the fastest of them.

    With ``deterministic`` cuDNN takes no kernel by timing, and PyTorch warns of an operation that has no reproducible
    form. cuBLAS reads its variable when it is first used in the process.
    """
    if torch.device(device).type != "cuda":
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
