"""Gets objectives from scripts: ``my_module:objective``, ``folder/my_script.py:objective``.

A published script often calls ``study.optimize(objective, …)`` at its end, outside of any function. The import ends
there: what is defined before it is what the search needs, and the search is ours to run.
"""

import contextlib
import difflib
import logging
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.trainers.errors import TrainerError
from hpo.trainers.registry import TRAINERS, TrainerEntry
from hpo.trainers.user_modules import ImportEndsHere, import_file, import_module

log = logging.getLogger("hpo")


@dataclass(frozen=True)
class OwnStudy:
    """The study that a script makes for an objective and optimizes by itself.

    Attributes:
        direction: ``"minimize"`` or ``"maximize"``.
        metric: the name that the script gave the objective's value, or None.
        n_trials: the number of trials that it asks for, or None.
    """

    direction: str
    metric: str | None
    n_trials: int | None


SPECS: dict[str, str] = {}
"""Trainer's name -> what a worker's ``--trainers`` needs to load the same objective, scripts by their absolute path."""

OWN_STUDIES: dict[str, OwnStudy] = {}
"""Trainer's name -> the study of the script, for the objectives whose script calls ``study.optimize`` when imported."""


class _OptimizeReached(ImportEndsHere):
    """A script has come to its call of ``study.optimize``; no ``except Exception`` of the script catches it."""

    def __init__(self, study: Any, function: Any, n_trials: int | None, line: int) -> None:
        super().__init__()
        self.study, self.function, self.n_trials, self.line = study, function, n_trials, line


def is_objective_name(name: str) -> bool:
    """Whether a name has the form ``module:function`` or ``script.py:function``."""
    module, colon, function = name.rpartition(":")
    return bool(colon and module and function) and all(part.isidentifier() for part in function.split("."))


def trainer_name(spec: str) -> str:
    """The name that a study file has for ``folder/my_script.py:objective``: ``my_script:objective``."""
    module, _, function = spec.rpartition(":")
    return f"{Path(module).stem if module.endswith('.py') else module}:{function}"


def load_objective(spec: str) -> TrainerEntry:
    """Imports the module or script of ``spec`` and registers its objective; a second time, only looks it up.

    A function that is decorated with ``@hpo.trainer`` is returned as the trainer that it is.

    Raises:
        TrainerError: if there is no such module, script or function, or it cannot be an objective; its module's own
            error is the cause.
    """
    name = trainer_name(spec)
    module_name, _, path = spec.rpartition(":")
    module, reached = _imported(module_name)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            ended = f"; its import ended at its call of study.optimize in line {reached.line}" if reached else ""
            raise TrainerError(f"there is no {part!r} in {module_name}{_near(part, found)}{ended}")
        found = getattr(found, part)
    absolute = str(Path(module_name).resolve()) if module_name.endswith(".py") else module_name
    if (entry := entry_of(found)) is not None:
        SPECS[entry.name] = f"{absolute}:{path}"
        return entry
    from hpo.trainers.objective import register_objective

    entry = register_objective(name, found)
    SPECS[name] = f"{absolute}:{path}"
    if reached is not None and reached.function is found:
        _learn(name, reached)
    return entry


def entry_of(function: Any) -> TrainerEntry | None:
    """The row of the table that a function decorated with ``@hpo.trainer`` has made, or None."""
    name = getattr(function, "__hpo_trainer__", None)
    return TRAINERS.get(name) if isinstance(name, str) else None


def _learn(name: str, reached: _OptimizeReached) -> None:
    directions = [direction.name.lower() for direction in reached.study.directions]
    if len(directions) > 1:
        raise TrainerError(
            f"{name}: its study has {len(directions)} directions; a search has one: return one number, and keep the "
            "others with trial.set_user_attr"
        )
    names = reached.study.metric_names
    OWN_STUDIES[name] = OwnStudy(directions[0], names[0] if names else None, reached.n_trials)


_reached: dict[str, _OptimizeReached] = {}  # file -> where its import ended


def _imported(name: str) -> tuple[types.ModuleType, _OptimizeReached | None]:
    """The module and, if its import ended there, its call of ``study.optimize``."""
    try:
        with _stopped_at_optimize() as reached:
            module = import_file(Path(name)) if name.endswith(".py") else import_module(name, Path.cwd())
    except TrainerError:
        raise
    except _OptimizeReached as error:
        raise TrainerError(
            f"{name} calls study.optimize when it is imported: call it below `if __name__ == '__main__':`"
        ) from error
    except (Exception, SystemExit) as error:
        raise TrainerError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    file = getattr(module, "__file__", None) or name
    if reached:
        log.info("%s calls study.optimize when it is imported; the import ends there", name)
        _reached[file] = reached[0]
    return module, _reached.get(file)


@contextlib.contextmanager
def _stopped_at_optimize() -> Iterator[list[_OptimizeReached]]:
    """Within the block ``study.optimize`` ends the import and is noted, and standard input is at its end."""
    import optuna

    reached: list[_OptimizeReached] = []

    def optimize(self: Any, func: Any, n_trials: int | None = None, *arguments: Any, **options: Any) -> None:
        reached.append(_OptimizeReached(self, func, n_trials, sys._getframe(1).f_lineno))
        raise reached[-1]

    original, stdin, verbosity = optuna.study.Study.optimize, sys.stdin, optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the script's own study is not the one that runs
    optuna.study.Study.optimize = optimize  # type: ignore[method-assign]
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield reached
        finally:
            optuna.study.Study.optimize = original  # type: ignore[method-assign]
            sys.stdin = stdin
            optuna.logging.set_verbosity(verbosity)


def _near(name: str, module: Any) -> str:

    known = [other for other, value in vars(module).items() if callable(value)] if hasattr(module, "__dict__") else []
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
