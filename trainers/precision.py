"""In which number format a configuration trains."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trainers.config import ClassifierConfig


@dataclass(frozen=True)
class Precision:
    """``data`` is the dtype of the resident inputs, ``weights`` of the parameters, ``autocast`` of the computation."""

    name: str
    data: torch.dtype
    weights: torch.dtype
    autocast: torch.dtype | None


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision("fp32", torch.float32, torch.float32, None),
    "bf16": Precision("bf16", torch.bfloat16, torch.float32, torch.bfloat16),
    "fp64": Precision("fp64", torch.float64, torch.float64, None),
}


def choose_precision(config: "ClassifierConfig", device: str) -> Precision:
    """What ``config.precision`` means on the device: ``auto`` is bf16 where the device computes it natively.

    On a CPU only the MLP gains from it (an epoch of (843, 323) on two cores of an EPYC with AVX512-BF16: 1.5 s in
    fp32, 0.6 s in bf16).
    """
    if config.precision != "auto":
        return PRECISIONS[config.precision]
    if torch.device(device).type == "cuda":
        return PRECISIONS["bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"]
    return PRECISIONS["bf16" if config.network == "mlp" and _cpu_has_bf16() else "fp32"]


def _cpu_has_bf16() -> bool:
    # Private, and not there on every platform and version.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
