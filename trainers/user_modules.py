"""Finds and loads the modules of a user, from their files, beside whatever else is called so.

The user's folder stands last on ``sys.path``, so that a file of his never takes the place of a module that this package
or a library imports. What his own files import is looked up in their folder first.
"""

import contextlib
import difflib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from hpo.trainers.errors import TrainerError


class ImportEndsHere(BaseException):
    """Raised in a module that is being run: its import ends and what it has defined so far is kept."""


_loaded: dict[Path, types.ModuleType] = {}
"""Modules by file, so that a file named in two ways is run once."""


def import_file(path: Path) -> types.ModuleType:
    """Runs the ``.py`` file at ``path`` as a module, once; what it raises is raised.

    It gets the file's name as its own if no other module has it, else a name made from its path.

    Raises:
        TrainerError: if there is no such file.
    """
    path = path.resolve()
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.py")], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise TrainerError(f"there is no trainer module at {path}{hint}")
    if path in _loaded:
        return _loaded[path]
    _add_folder(path.parent)
    spec = importlib.util.spec_from_file_location(_free_name(path.stem, path), path)
    assert spec is not None
    return _execute(spec, path)


def import_module(name: str, folder: Path) -> types.ModuleType:
    """Imports the module ``name`` (dots separate packages), from ``folder`` if it is there, else as Python finds it.

    Raises:
        TrainerError: if there is no such module anywhere.
    """
    _add_folder(folder)
    top, _, submodule = name.partition(".")
    own = importlib.machinery.PathFinder.find_spec(top, [str(folder)])
    if own is None or (own.loader is None and not _has_module(folder, name)):
        return _imported(name, name, folder)
    if own.loader is None:  # a folder without __init__.py: it takes its name only if nobody else has it
        if _is_free_for_folder(top, folder / top):
            return _imported(name, name, folder)
        return import_file(folder.joinpath(*name.split(".")).with_suffix(".py"))
    assert own.origin is not None
    origin = Path(own.origin).resolve()
    if origin not in _loaded:
        if origin.name != "__init__.py":
            module = import_file(origin)
            return module if not submodule else _imported(f"{module.__name__}.{submodule}", name, folder)
        package = importlib.util.spec_from_file_location(
            _free_name(top, origin), origin, submodule_search_locations=[str(origin.parent)]
        )
        assert package is not None
        _execute(package, origin)
    module = _loaded[origin]
    return module if not submodule else _imported(f"{module.__name__}.{submodule}", name, folder)


def _imported(actual: str, name: str, folder: Path) -> types.ModuleType:
    """Imports ``actual``; if that very module is absent, the error names what ``name`` may have meant."""
    try:
        return importlib.import_module(actual)
    except ModuleNotFoundError as error:
        if error.name is None or not (actual == error.name or actual.startswith(f"{error.name}.")):
            raise
        near = difflib.get_close_matches(name, _modules_in(folder), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TrainerError(
            f"the trainer module {name!r} cannot be imported: ModuleNotFoundError: there is none in {folder}, nor is "
            f"one installed{hint}"
        ) from error


def _execute(spec: importlib.machinery.ModuleSpec, path: Path) -> types.ModuleType:
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    _loaded[path] = module
    try:
        spec.loader.exec_module(module)
    except ImportEndsHere:
        pass
    except BaseException:
        del _loaded[path]
        sys.modules.pop(spec.name, None)
        raise
    return module


def _free_name(name: str, path: Path) -> str:
    """``name`` if no module but the one at ``path`` is called so, else one with a hash of the path."""
    held = sys.modules.get(name)
    if held is not None:
        is_free = False
    else:
        spec = None
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name)
        is_free = spec is None or spec.loader is None or Path(spec.origin or "").resolve() == path
    return name if is_free else f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def _is_free_for_folder(name: str, folder: Path) -> bool:
    """Whether ``import name`` reaches the folder without ``__init__.py``."""
    if (module := sys.modules.get(name)) is not None:
        return str(folder) in list(getattr(module, "__path__", []))
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is None


def _has_module(folder: Path, name: str) -> bool:
    path = folder.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def _modules_in(folder: Path) -> list[str]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    files = [path.stem for path in entries if path.suffix == ".py"]
    packages = [path for path in entries if (path / "__init__.py").is_file()]
    inside = [f"{package.name}.{path.stem}" for package in packages for path in package.glob("*.py")]
    return [*files, *(package.name for package in packages), *inside]


def _add_folder(folder: Path) -> None:
    """Puts the folder at the end of the path, and lets what lies below it import from it first."""
    text = str(folder)
    if text not in sys.path and not ("" in sys.path and folder == Path.cwd()):
        sys.path.append(text)
    finder = next((finder for finder in sys.meta_path if isinstance(finder, _OwnFolderFirst)), None)
    if finder is None:
        finder = _OwnFolderFirst()
        sys.meta_path.insert(0, finder)
    if text not in finder.folders:
        finder.folders.append(text)


class _OwnFolderFirst(importlib.abc.MetaPathFinder):
    """Gives to an import statement in a user's file what lies in the user's folder, before what is installed.

    A folder without ``__init__.py`` (such as ``wandb/`` or ``datasets/``, which hold data) and the standard library's
    names are left to the ordinary search.
    """

    def __init__(self) -> None:
        self.folders: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or fullname in sys.stdlib_module_names or fullname == "hpo":
            return None
        importer = _importing_file()
        if importer is None:
            return None
        for folder in self.folders:
            if _is_below(importer, folder) and not _is_installed(importer, folder):
                spec = importlib.machinery.PathFinder.find_spec(fullname, [folder])
                if spec is not None and spec.loader is not None:
                    return spec
        return None


def _is_below(file: str, folder: str) -> bool:
    return file.startswith(folder.rstrip("/") + "/")


def _is_installed(file: str, folder: str) -> bool:
    """Whether the file belongs to a library that is installed inside of the user's folder, as in ``.venv``."""
    return any(len(entry) > len(folder) and _is_below(file, entry) for entry in map(os.path.abspath, sys.path))


def _importing_file() -> str | None:
    """The file of the import statement that is being run."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if "importlib" not in name and name != __file__:
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return None
