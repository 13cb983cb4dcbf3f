"""Imports the trainers of the package and the user's modules."""

import importlib
import importlib.util
import logging
import typing
from pathlib import Path

from hpo.trainers.errors import TrainerError

log = logging.getLogger("hpo")


def load_trainers(modules: str | typing.Iterable[str]) -> None:
    """Imports the trainers that come with the package and the user's modules (names, or paths of ``.py`` files).

    Raises:
        TrainerError: where a module cannot be imported; its own error is the cause.
    """
    importlib.import_module("hpo.trainers.classifier.entry")
    names = modules.split(",") if isinstance(modules, str) else modules
    for name in filter(None, (name.strip() for name in names)):
        try:
            _import(name)
        except TrainerError:
            raise
        except Exception as error:
            raise TrainerError(
                f"the trainer module {name!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error


def _import(name: str) -> None:
    import sys

    if not name.endswith(".py"):
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        importlib.import_module(name)
        return
    path = Path(name).resolve()
    if not path.is_file():
        raise TrainerError(f"there is no trainer module at {path}")
    module_name = path.stem
    if (loaded := sys.modules.get(module_name)) is not None and getattr(loaded, "__file__", None) == str(path):
        return
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
