"""``hpo.export("digits", "best.toml")`` in Python, and the writing of exported files."""

import os
from pathlib import Path

from hpo.database.storage import open_storage
from hpo.errors import UsageError
from hpo.experiment.experiment import Experiment, load_experiment
from hpo.experiment.results import BestTrial, best_trials
from hpo.export.files import export_text, load_if_possible
from hpo.settings import Settings


def exported_texts(
    experiment: Experiment,
    settings: Settings,
    *,
    sampler: str | None = None,
    top: int = 1,
    form: str = "toml",
    to_train: bool = False,
    pareto: bool = False,
) -> list[tuple[str, BestTrial]]:
    """Text and trial of each of the best ``top`` configurations, from one look at the database."""
    load_if_possible(settings.trainers)
    return [
        (export_text(experiment, best, settings, rank, form, to_train=to_train), best)
        for rank, best in enumerate(best_trials(experiment, sampler, top, pareto=pareto), start=1)
    ]


def write_exported(
    experiment: Experiment,
    settings: Settings,
    path: str | Path,
    *,
    sampler: str | None = None,
    top: int = 1,
    form: str | None = None,
    pareto: bool = False,
) -> list[tuple[Path, BestTrial]]:
    """Writes the best configuration to ``path``; with ``top`` K also ``path``-2 … ``path``-K beside it.

    ``pareto``: the configurations of the Pareto front, likewise.

    The form follows the ending (``.json``, else TOML). Returns the files with what they hold.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} to write {path.name} in")
    by_ending = "json" if path.suffix == ".json" else "toml"
    written = []
    texts = exported_texts(
        experiment,
        settings,
        sampler=sampler,
        top=top,
        form=form or by_ending,
        to_train=form is None,
        pareto=pareto,
    )
    for rank, (text, best) in enumerate(texts, start=1):
        target = path if rank == 1 else path.with_name(f"{path.stem}-{rank}{path.suffix}")
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        aside.write_text(text)
        os.replace(aside, target)
        written.append((target, best))
    return written


def export(
    experiment: str,
    path: str | Path | None = None,
    *,
    sampler: str | None = None,
    top: int = 1,
    pareto: bool = False,
    form: str | None = None,
    storage: str | None = None,
    home: str | Path | None = None,
    settings: Settings | None = None,
) -> str | list[Path]:
    """The best configuration as a file at ``path`` (with ``top`` K also ``path``-2 … ``path``-K), or as text.

    ``pareto``: of an experiment with two objectives all configurations of the Pareto front, likewise.

    Needs none of the experiment's trainers. Returns the paths, or without ``path`` the text.

    Raises:
        ExperimentError: for an unknown experiment, or one of which no trial has completed.
        UsageError: for an unknown sampler or form, or a folder that is not there.
    """
    chosen = (settings or Settings()).replaced(storage=storage, home=home)
    found = load_experiment(open_storage(chosen.storage, home=chosen.home), experiment)
    if path is None:
        texts = exported_texts(found, chosen, sampler=sampler, top=top, form=form or "toml", pareto=pareto)
        return "\n".join(text for text, _ in texts)
    files = write_exported(found, chosen, path, sampler=sampler, top=top, form=form, pareto=pareto)
    return [written for written, _ in files]
