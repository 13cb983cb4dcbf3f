"""Seeds Python's, NumPy's and torch's global random generators, so that a trial and ``hpo train`` draw alike.

Neither NumPy nor torch is imported for it. A library that the user's code imports later is seeded at its import.
"""

import importlib.abc
import importlib.machinery
import random
import sys
import types
from collections.abc import Sequence
from typing import Any

LIBRARIES = ("numpy", "torch")


def seed_libraries(seed: int) -> None:
    """Seeds ``random``, ``numpy.random`` and ``torch`` (all devices) from ``seed``, a whole number from 0."""
    random.seed(seed)
    for name in LIBRARIES:
        if (module := sys.modules.get(name)) is not None:
            _seed(name, module, seed)
    _SeedAtImport.seed = seed
    if not any(isinstance(finder, _SeedAtImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _SeedAtImport())


def seed_at_import() -> int:
    """The seed that a library gets that is imported now."""
    return _SeedAtImport.seed


def set_seed_at_import(seed: int) -> None:
    """Sets the seed that a library gets that is imported later."""
    _SeedAtImport.seed = seed


def _seed(name: str, module: Any, seed: int) -> None:
    if name == "numpy" and hasattr(module, "random"):
        module.random.seed(seed % 2**32)
    elif name == "torch" and hasattr(module, "manual_seed"):
        module.manual_seed(seed)


class _SeedAtImport(importlib.abc.MetaPathFinder):
    """Seeds a library right after its first import, from the seed of the trial that runs then."""

    seed = 0

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in LIBRARIES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _SeedingLoader(spec.loader)
        return spec


class _SeedingLoader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        created: types.ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _seed(module.__name__, module, _SeedAtImport.seed)
