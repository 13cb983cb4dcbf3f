"""The workers of an experiment: who is alive, where, on what, what it trains, what it uses, the end of its log."""

from collections.abc import Callable
from typing import Any

from hpo.dashboard.guard import Access
from hpo.dashboard.opened import answering, named_experiment, page
from hpo.database.storage import Storage
from hpo.database.workers import read_workers


class WorkersPage:
    """The view of the workers; ``routes`` lists it."""

    def __init__(self, storage: Storage, access: Access) -> None:
        self._storage, self._access = storage, access
        self.routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (("/workers", "GET", answering(self.workers)),)

    def workers(self) -> str:
        experiment = named_experiment(self._storage)
        with self._storage.engine.connect() as connection:
            rows = read_workers(connection, experiment.study_ids)
        names = {study.study_id: f"{study.sampler.label}/{study.repeat}" for study in experiment.studies}
        return page(
            "workers.html",
            self._access,
            experiment,
            alive=[row for row in rows if row.alive],
            gone=[row for row in rows if not row.alive][::-1],
            trial_name=lambda trial: f"{names[trial.study_id]}/{trial.number}",
        )
