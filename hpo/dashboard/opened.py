"""What the pages of trials, workers and steering share: the experiment that a request names, and its errors."""

import functools
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import bottle  # type: ignore[import-untyped]
import optuna
import sqlalchemy as sa

from hpo.dashboard import web
from hpo.dashboard.guard import PREFIX, Access
from hpo.database.storage import Storage
from hpo.errors import StorageError
from hpo.experiment.experiment import Experiment, load_experiment


def named_experiment(storage: Storage) -> Experiment:
    """The experiment of the request; raises ExperimentError with the near miss if there is none."""
    return load_experiment(storage, bottle.request.params.name)


def link(path: str, **values: Any) -> str:
    """A link of ours with these values; those that are empty are left out."""
    given = {key: value for key, value in values.items() if value not in ("", None, False)}
    return f"{PREFIX}/{path}?{urlencode(given, doseq=True)}"


def page(template: str, access: Access, experiment: Experiment, **values: Any) -> str:
    """A page about one experiment."""
    name = experiment.name
    shared = {"name": name, "query": urlencode({"name": name}), "experiment_link": web.experiment_link(name)}
    return web.page(template, access, link=link, **shared, **values)


def answering(view: Callable[..., Any]) -> Callable[..., Any]:
    """Turns an error of the database into one that says what it means for the person: nothing was changed."""

    @functools.wraps(view)
    def answer(**arguments: str) -> Any:
        try:
            return view(**arguments)
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, optuna.exceptions.StorageInternalError) as error:
            raise StorageError(
                "The database does not answer, so nothing was changed; workers train on. Try again once it answers."
            ) from error

    return answer
