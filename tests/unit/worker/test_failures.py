"""The failure table: every spelling of an error finds its row, one error is recognized although its text changes."""

import errno
import gc
import weakref

import numpy as np
import optuna
import pytest
import torch

from hpo.trainers.errors import Infeasible
from hpo.worker import failures
from hpo.worker.exit_codes import EXIT_DEVICE, EXIT_RESTART
from hpo.worker.failures import (
    DEVICE_LOST,
    INFEASIBLE,
    OUT_OF_MEMORY,
    PROCESS_STATE,
    PRUNED,
    RAISED,
    TABLE,
    Failure,
    classify,
    normalise,
)


class XlaRuntimeError(Exception):
    """As jaxlib's, which is a RuntimeError in some versions and an Exception of its own in others."""


def numpys_own() -> BaseException:
    with pytest.raises(MemoryError) as caught:
        np.zeros(1 << 45)
    return caught.value


def torchs_own() -> BaseException:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    return caught.value


def wrapped(error: BaseException) -> BaseException:
    """As a training framework raises it: an error of its own, from the one beneath it."""
    try:
        raise ValueError("training failed") from error
    except ValueError as outer:
        return outer


CASES: list[tuple[BaseException, Failure]] = [
    (MemoryError(), OUT_OF_MEMORY),
    (numpys_own(), OUT_OF_MEMORY),
    (torchs_own(), OUT_OF_MEMORY),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 600.00 MiB. GPU 0 has 800.00 MiB"), OUT_OF_MEMORY),
    (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.79 GiB total)"), OUT_OF_MEMORY),
    (RuntimeError("CUDA error: out of memory"), OUT_OF_MEMORY),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OUT_OF_MEMORY),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"), OUT_OF_MEMORY),
    (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 629145600 bytes."), OUT_OF_MEMORY),
    (XlaRuntimeError("RESOURCE_EXHAUSTED: Failed to allocate request for 2.00GiB on device"), OUT_OF_MEMORY),
    (RuntimeError("std::bad_alloc"), OUT_OF_MEMORY),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), OUT_OF_MEMORY),
    (wrapped(torch.OutOfMemoryError("CUDA out of memory.")), OUT_OF_MEMORY),
    (RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronous"), DEVICE_LOST),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), DEVICE_LOST),
    (RuntimeError("CUDA error: unspecified launch failure"), DEVICE_LOST),
    (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DEVICE_LOST),
    (RuntimeError("CUDA driver error: unknown error"), DEVICE_LOST),
    (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), DEVICE_LOST),
    (wrapped(RuntimeError("CUDA error: device-side assert triggered")), DEVICE_LOST),
    (OSError(errno.EMFILE, "Too many open files", "data.bin"), PROCESS_STATE),
    (OSError(errno.ENOSPC, "No space left on device"), PROCESS_STATE),
    (RuntimeError("can't start new thread"), PROCESS_STATE),
    (
        RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many open files"),
        PROCESS_STATE,
    ),
    (optuna.TrialPruned("hopeless"), PRUNED),
    (Infeasible("heads must divide width"), INFEASIBLE),
    (SystemExit(0), RAISED),
    (ValueError("no such luck"), RAISED),
    (KeyError("x"), RAISED),
    (ValueError("the note says CUDA error, and out of memory"), RAISED),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied (32x10 and 20x5)"), RAISED),
]


@pytest.mark.parametrize(("error", "row"), CASES, ids=lambda value: repr(value)[:60])
def test_every_spelling_finds_its_row(error: BaseException, row: Failure) -> None:
    assert classify(error) is row


def test_what_ends_the_worker() -> None:
    assert {
        row.name: row.exit_code for row in TABLE if row.ends_worker and row.name in ("out of memory", "device lost")
    } == {
        "out of memory": EXIT_RESTART,
        "device lost": EXIT_DEVICE,
    }
    assert not RAISED.ends_worker


def test_a_message_that_cannot_be_read_is_described() -> None:
    mute = type("Mute", (Exception,), {"__str__": lambda self: 1 / 0})()
    assert failures.describe(mute) == "Mute: (its message cannot be shown: ZeroDivisionError)"
    assert classify(mute) is RAISED
    assert failures.describe(ValueError("a NUL \0 and half a character \udcff")) == (
        "ValueError: a NUL \\x00 and half a character \\udcff"
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("tried to allocate 20.00 MiB, 1.5 GiB free", "tried to allocate 512 MiB, 0.2 GiB free"),
        ("<object at 0x7f0d9692e010>", "<object at 0x7ffa4feafad0>"),
        ("worker 4711 died", "worker 13 died"),
        ("no file /tmp/trial-ab12/x.txt", "no file /tmp/trial-zz99/y.txt"),
        ("loss 1e-05 at step 12", "loss 3.5 at step 9"),
        (r"no file C:\temp\a1\x.txt", r"no file C:\temp\b2\x.txt"),
    ],
)
def test_one_error_with_changing_text_is_one_error(first: str, second: str) -> None:
    assert first != second
    assert normalise(first) == normalise(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("ValueError: no such luck", "ValueError: no such file"), ("KeyError: 'lr'", "KeyError: 'beta'")],
)
def test_two_errors_stay_two(first: str, second: str) -> None:
    assert normalise(first) != normalise(second)


def test_a_released_error_keeps_nothing_of_its_trial_alive() -> None:
    class Network:
        """What a trial's frames hold."""

    held: list[weakref.ref[Network]] = []

    def train() -> None:
        network = Network()
        held.append(weakref.ref(network))
        try:
            raise RuntimeError("beneath")
        except RuntimeError as inner:
            raise ValueError("above") from inner

    try:
        train()
    except ValueError as caught:
        error = caught
    gc.collect()
    assert held[0]() is not None
    failures.release(error)
    assert held[0]() is None
    assert error.__traceback__ is None


def test_the_table_is_printed_for_the_documentation() -> None:
    lines = failures.as_markdown().splitlines()
    assert len(lines) == 2 + len(TABLE)
    assert all(line.count(" | ") == 3 and line.startswith("| ") and line.endswith(" |") for line in lines)
    assert len({row.name for row in TABLE}) == len(TABLE)
