"""Imports the user's modules, which register their trainers; those of the package are in the table from the start."""

import typing
from pathlib import Path

from hpo.trainers.errors import TrainerError
from hpo.trainers.functions import SUFFIX, load_function
from hpo.trainers.objective_loading import is_objective_name, load_objective
from hpo.trainers.user_modules import import_file, import_module


def load_trainers(modules: str | typing.Iterable[str]) -> None:
    """Imports the user's modules (names, or paths of ``.py`` files).

    Raises:
        TrainerError: if a module cannot be imported; its own error is the cause.
    """
    names = modules.split(",") if isinstance(modules, str) else modules
    for name in filter(None, (name.strip() for name in names)):
        try:
            _load(name)
        except TrainerError:
            raise
        except Exception as error:
            raise TrainerError(
                f"the trainer module {name!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error


def _load(name: str) -> None:
    if name.endswith(SUFFIX):
        load_function(Path(name))
        return
    if is_objective_name(name):
        load_objective(name)
        return
    path = Path(name if name.endswith(".py") else f"{name}.py").absolute()
    if path.name == "hpo.py" and path.is_file():
        raise TrainerError(
            f"{path} has the name of this package: `import hpo` in it or in a script beside it imports the file "
            "itself. Rename it, for example to search.py, and remove __pycache__"
        )
    if name.endswith(".py"):
        import_file(path)
    else:
        import_module(name, Path.cwd())
