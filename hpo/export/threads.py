"""The number of threads of ``hpo train``: that of the worker whose result is to come out again. Standard library only.

Floating-point sums depend on the number of threads. OpenMP and the BLAS libraries read it from the environment when
they are loaded, so the command line calls :func:`restore_threads` before anything imports NumPy or torch.
"""

import contextlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MOST_THREADS = 256


def recorded_threads(content: Any) -> int | None:
    """The number of threads that an exported file's ``[provenance.trained_on]`` says, or None."""
    with contextlib.suppress(KeyError, TypeError):
        threads = content["provenance"]["trained_on"]["threads"]
        if isinstance(threads, int) and 1 <= threads <= MOST_THREADS:
            return threads
    return None


def restore_threads(path: Path) -> None:
    """Sets the environment to the number of threads that the file at ``path`` says; a file with mistakes sets none."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        text = path.read_text(encoding="utf-8")
        threads = recorded_threads(json.loads(text) if path.suffix == ".json" else tomllib.loads(text))
        if threads is not None:
            os.environ.update(dict.fromkeys(VARIABLES, str(threads)))


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within the block torch uses so many threads, if it has been imported; afterwards as many as before."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch is not None and before is not None:
            torch.set_num_threads(before)
