"""An experiment in Python, as ``hpo.launch`` and ``hpo.load`` return it.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import functools
from pathlib import Path
from typing import Any

import optuna

from hpo.database.retries import retry_failed
from hpo.experiment.experiment import Experiment
from hpo.experiment.results import BestTrial, best_trials
from hpo.experiment.status import snapshot
from hpo.export.python import exported_texts, write_exported
from hpo.launchers.notebook import status_html
from hpo.settings import Settings


class Status(dict[str, Any]):
    """Where an experiment stands; a notebook shows it as a table."""

    def _repr_html_(self) -> str:
        return status_html(self)


class LoadedExperiment:
    """An experiment in a storage, finished or not; ``settings`` are those that it was opened with."""

    def __init__(self, experiment: Experiment, settings: Settings) -> None:
        self._experiment = experiment
        self.settings = settings

    def __repr__(self) -> str:
        number = len(self._experiment.studies)
        return f"LoadedExperiment({self.name!r}, {number} {'study' if number == 1 else 'studies'})"

    @property
    def name(self) -> str:
        return self._experiment.name

    @functools.cached_property
    def studies(self) -> dict[str, optuna.Study]:
        """The Optuna studies by name, on which every Optuna tool works."""
        storage = optuna.storages.get_storage(self._experiment.storage)
        pruner = optuna.pruners.NopPruner()
        return {
            study.name: optuna.load_study(study_name=study.name, storage=storage, pruner=pruner)
            for study in self._experiment.studies
        }

    def status(self) -> dict[str, Any]:
        """What ``hpo status --json`` prints."""
        return Status(snapshot(self._experiment, self.settings.checkpoints))

    def _repr_html_(self) -> str:
        return status_html(self.status())

    def best(self, sampler: str | None = None) -> BestTrial:
        """The best completed trial, of one sampler or of all. Raises ExperimentError where there is none yet."""
        return best_trials(self._experiment, sampler)[0]

    def pareto_front(self, sampler: str | None = None) -> list[BestTrial]:
        """The configurations that no other dominates, the best of the first metric first.

        Raises:
            UsageError: if the experiment has one metric.
            ExperimentError: if no trial has completed yet.
        """
        return best_trials(self._experiment, sampler, pareto=True)

    def exported_texts(
        self, *, sampler: str | None = None, top: int = 1, form: str = "toml", pareto: bool = False
    ) -> list[str]:
        """The best ``top`` configurations, or the Pareto front, each as a file's text. Needs none of the trainers."""
        texts = exported_texts(self._experiment, self.settings, sampler=sampler, top=top, form=form, pareto=pareto)
        return [text for text, _ in texts]

    def export(
        self,
        path: str | Path,
        *,
        sampler: str | None = None,
        top: int = 1,
        form: str | None = None,
        pareto: bool = False,
    ) -> list[tuple[Path, BestTrial]]:
        """Writes the best configuration to ``path``; with ``top`` K also ``path``-2 … ``path``-K beside it.

        The form follows the ending (``.json``, else TOML). Returns the files with what they hold.
        """
        return write_exported(self._experiment, self.settings, path, sampler=sampler, top=top, form=form, pareto=pareto)

    def export_model(self, path: str | Path, *, sampler: str | None = None) -> BestTrial:
        """Writes the model that the best trial kept to ``path``; returns the trial.

        Raises:
            ExperimentError: if no trial has completed, the best one kept no model, or its folder is on another machine.
        """
        from hpo.export.model import export_model

        best = self.best(sampler)
        export_model(self._experiment, best, self.settings, Path(path))
        return best

    def retry_failed(self) -> int:
        """Queues every failed lineage again, for the next launch; returns how many there were."""
        return retry_failed(self._experiment.storage.engine, self._experiment.study_ids)
