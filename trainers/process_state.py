"""The process's global state while several trainings take turns in it: each finds what it left, not what another did.

A training that draws from ``random``, ``numpy.random`` or torch's global generators, changes the current folder or sets
an environment variable would otherwise depend on the trainings beside it.
"""

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

from hpo.trainers import seeding


class ProcessState:
    """The current folder, the environment variables and, if ``generators``, the global random generators, as they are
    now; :meth:`restore` puts them back."""

    def __init__(self, *, generators: bool) -> None:
        try:
            self._folder: str | None = os.getcwd()
        except FileNotFoundError:
            self._folder = None
        self._environment = dict(os.environ)
        self._generators = _generators() if generators else None

    def restore(self) -> None:
        if self._folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(self._folder)
        restore_environment(self._environment)
        if self._generators is not None:
            _set_generators(self._generators)


def restore_environment(environment: dict[str, str]) -> None:
    """Puts back the environment variables of this process."""
    if dict(os.environ) == environment:
        return
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


class Turns:
    """One of several trainings that take turns; ``generators``: whether its random generators are its own."""

    def __init__(self, *, generators: bool) -> None:
        self._generators = generators
        self._left: ProcessState | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Within the block the process is as this training left it; at its first turn, as it is."""
        others = ProcessState(generators=self._generators)
        try:
            if self._left is not None:
                self._left.restore()
            yield
            self._left = ProcessState(generators=self._generators)
        finally:
            others.restore()


def _generators() -> dict[str, Any]:
    """The states of the generators of the libraries that are imported; ``seed`` is that of a later import."""
    states: dict[str, Any] = {"seed": seeding.seed_at_import(), "random": random.getstate()}
    if (numpy := sys.modules.get("numpy")) is not None and hasattr(numpy, "random"):
        states["numpy"] = numpy.random.get_state()
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_rng_state"):
        states["torch"] = torch.get_rng_state()
        if torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _set_generators(states: dict[str, Any]) -> None:
    """A library that was imported since the states were taken is seeded as at its import."""
    seed = states["seed"]
    seeding.set_seed_at_import(seed)
    random.setstate(states["random"])
    if (numpy := sys.modules.get("numpy")) is not None and hasattr(numpy, "random"):
        numpy.random.set_state(states["numpy"]) if "numpy" in states else numpy.random.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None and hasattr(torch, "get_rng_state"):
        if "torch" not in states:
            torch.manual_seed(seed)
            return
        if "cuda" in states:
            torch.cuda.set_rng_state_all(states["cuda"])
        elif torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        torch.set_rng_state(states["torch"])
