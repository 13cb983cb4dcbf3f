"""Functions that a person passes to ``hpo.launch``: objectives and trainers from a module, a script or a notebook cell.

A function that worker processes can import is named to them. One that they cannot (it was defined in a notebook or in
the running script) is pickled to a file in the launcher's own home, which only this launch's workers read.
"""

import hashlib
import inspect
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpo.trainers.errors import TrainerError
from hpo.trainers.objective_loading import SPECS, entry_of
from hpo.trainers.registry import TRAINERS, TrainerEntry

SUFFIX = ".function"
_functions: dict[str, Any] = {}  # trainer's name -> the function that was passed


def register_function(function: Callable[..., Any]) -> TrainerEntry:
    """The trainer of a function: what ``@hpo.trainer`` made of it, else an Optuna objective.

    Raises:
        TrainerError: for what is neither.
    """
    entry = entry_of(function)
    if entry is None:
        from hpo.trainers.objective import register_objective

        entry = register_objective(_name(function), function)
    _functions[entry.name] = function
    return entry


def spec_for_workers(entry: TrainerEntry, folder: Path) -> str | None:
    """What a worker's ``--trainers`` must name to get an objective or a function that was passed; else None.

    A function that cannot be imported is pickled to a file in ``folder``, which only its owner can read.

    Raises:
        TrainerError: if it cannot be pickled.
    """
    function = _functions.get(entry.name)
    if function is None:
        return SPECS.get(entry.name)
    return _importable(function) or str(_pickle(entry, function, folder))


def load_function(path: Path) -> TrainerEntry:
    """Registers the function in a file that :func:`spec_for_workers` wrote.

    Raises:
        TrainerError: if somebody else may have written the file, or it is not whole.
    """
    import cloudpickle

    if not path.is_file():
        raise TrainerError(f"there is no function at {path}")
    state = path.stat()
    content = path.read_bytes()
    if state.st_uid != os.getuid() or state.st_mode & 0o022 or hashlib.sha256(content).hexdigest() != path.stem:
        raise TrainerError(f"{path} is not the file that a launch of this user wrote: launch again")
    try:
        kept = cloudpickle.loads(content)
    except Exception as error:
        raise TrainerError(
            f"the function in {path} cannot be loaded here ({type(error).__name__}: {error}): put it into a module"
        ) from error
    name, function = kept["name"], kept["function"]
    if kept["trainer"] is None:
        from hpo.trainers.objective import register_objective

        return register_objective(name, function)
    from hpo.trainers.generator import trainer

    # Annotations that are text would be looked up in a notebook that is not here.
    function.__annotations__ = {**function.__annotations__, **kept["annotations"]}
    trainer(name, **kept["trainer"])(function)
    return TRAINERS[name]


def _pickle(entry: TrainerEntry, function: Any, folder: Path) -> Path:

    import cloudpickle

    options = None
    annotations: dict[str, Any] = {}
    if not entry.suggests:
        options = {name: getattr(entry, name) for name in ("metrics", "max_epochs", "nan_is_no_report")}
        first = next(iter(inspect.signature(function).parameters))
        annotations = {first: typing.get_type_hints(function)[first]}
    kept = {"name": entry.name, "function": function, "trainer": options, "annotations": annotations}
    try:
        content: bytes = cloudpickle.dumps(kept)
    except Exception as error:
        raise TrainerError(
            f"{entry.name} cannot be handed to worker processes ({type(error).__name__}: {error}): make what it uses "
            "inside of it, put it into a module, or launch with launcher='inline'"
        ) from error
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(content).hexdigest()}{SUFFIX}"
    aside = path.with_suffix(f".{os.getpid()}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    os.replace(aside, path)
    return path


def _importable(function: Any) -> str | None:
    """How a worker imports a function, or None if it cannot."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    path = getattr(function, "__qualname__", "")
    file = getattr(module, "__file__", None)
    if module is None or module.__name__ == "__main__" or not file or not path or "<" in path:
        return None
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is not function:
        return None
    is_in_package = "." in module.__name__ or not file.endswith(".py")
    return f"{module.__name__ if is_in_package else Path(file).resolve()}:{path}"


def _name(function: Any) -> str:
    """``module:function``; for what the running script or notebook defined, its file's name or ``notebook``."""
    inner = getattr(function, "func", function)  # of a functools.partial
    name = getattr(inner, "__name__", None) or type(inner).__name__
    if not name.isidentifier():
        name = "objective"
    module = getattr(inner, "__module__", None) or "__main__"
    if module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        module = Path(file).stem if file else "notebook"
    return f"{module}:{name}"
