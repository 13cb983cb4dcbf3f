"""The Python API: the same verbs as the command line, with real ``optuna.Study`` objects behind them.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import contextlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.database.address import serve_database, served_settings
from hpo.database.retries import retry_failed
from hpo.database.retrying import persistently
from hpo.database.steering import end_stop
from hpo.database.storage import open_storage
from hpo.errors import ExperimentError, StorageError, StudyFileError
from hpo.experiment.experiment import (
    Experiment,
    check_trainer,
    create_experiment,
    load_experiment,
    missing_trainer,
)
from hpo.experiment.imports import read_import, write_import
from hpo.experiment.starts import with_like, with_starts
from hpo.experiment.status import is_finished, snapshot
from hpo.experiment.steering import person
from hpo.experiment.trainer_version import record_version
from hpo.files.store import check_writable
from hpo.launchers.launch import check_launch
from hpo.launchers.launch import launch as run_launcher
from hpo.launchers.notebook import NotebookProgress, in_notebook
from hpo.launchers.progress import JsonProgress, PlainProgress
from hpo.launchers.registry import LaunchOptions, Progress, make_options
from hpo.loaded_experiment import LoadedExperiment
from hpo.settings import Settings
from hpo.study_source import Source, Trainers, read_study, sorted_options, takes_keys, trainer_modules
from hpo.studyfile.load import read_table
from hpo.studyfile.notes import notes_on
from hpo.studyfile.program import check_program
from hpo.trainers.loading import load_trainers
from hpo.trainers.registry import TRAINERS


def launch(
    study: Source,
    *,
    launcher: str = "local",
    workers: int | None = None,
    trainers: Trainers | None = None,
    storage: str | None = None,
    home: str | Path | None = None,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
    accept_trainer: bool = False,
    serve: bool = False,
    like: Sequence[str] = (),
    imports: Sequence[str | Path] = (),
    **options: Any,
) -> LoadedExperiment:
    """Runs a study to its end, as ``hpo launch`` does.

    Args:
        study: the path of a study file, its text, a dict with its keys, a ``StudyFile``, or a function: an Optuna
            objective or a generator with ``@hpo.trainer``, from a module or from a cell of a notebook. A function takes
            the study file's keys as ``options``, such as ``trials=100, direction="maximize", sampler="tpe"``.
        launcher: how workers are started: ``"local"``, ``"inline"``, ``"ray"``, …; see ``hpo list``.
        workers: number of workers; None: one a GPU, or a core.
        trainers: modules or functions with trainers of your own.
        storage, home, data_dir: as in :class:`Settings`; the environment's if not given.
        progress: what is told how far it is; by default a line that is updated in a notebook, lines elsewhere.
        accept_trainer: whether trials that another version of the trainer's configuration made count as trials of this.
        serve: whether workers on other machines reach the embedded server, over TCP with a password.
        like: earlier experiments whose best configurations are tried first, beside the study file's ``like``.
        imports: earlier experiments, or CSV files, whose finished trials the samplers are to know; see
            :func:`hpo.import_trials`.
        options: those of the launcher (see its class in :mod:`hpo.launchers.registry`), further settings, and beside a
            function the study file's keys.

    Raises:
        StudyFileError: for mistakes in the study file, all of them at once, before anything is written.
        UsageError: for an argument that nothing takes, with the near miss.
        HPOError: if the experiment cannot be finished.
    """
    of_launcher, of_settings, keys = sorted_options(options, takes_keys=takes_keys(study))
    of_settings |= {"storage": storage, "home": home, "data_dir": data_dir, "trainers": trainer_modules(trainers)}
    chosen = make_options(launcher, workers=workers, **of_launcher)
    progress = progress or (NotebookProgress() if in_notebook() else PlainProgress())
    replaced = (settings or Settings()).replaced(**of_settings)
    return launch_with(
        study,
        launcher,
        replaced,
        chosen,
        progress,
        keys,
        accept_trainer=accept_trainer,
        serve=serve,
        like=like,
        imports=imports,
    )


def launch_with(
    study: Source,
    launcher: str,
    settings: Settings,
    options: LaunchOptions,
    progress: Progress,
    keys: Mapping[str, Any] | None = None,
    *,
    accept_trainer: bool = False,
    serve: bool = False,
    like: Sequence[str] = (),
    imports: Sequence[str | Path] = (),
) -> LoadedExperiment:
    """As :func:`launch`, with everything given; ``keys``: the study file's, beside an objective or a function."""
    if serve:
        settings = served_settings(settings)
    check_launch(launcher, settings, options)
    try:
        parsed, settings = read_study(study, settings, keys, launcher)
    except StudyFileError:
        _check_modules_of_before(study, settings)
        raise
    if (check := TRAINERS[parsed.trainer].check) is not None:
        for config in parsed.example_configs():
            check(config, settings.data_dir, settings.download)
    if parsed.command is not None and launcher in ("local", "inline"):
        check_program(parsed.command, parsed.name)
    check_writable(settings.checkpoints)
    if serve:
        serve_database(settings)
    parsed = with_like(parsed, like)
    storage = open_storage(settings.storage, home=settings.home)
    started, lines = persistently(lambda: with_starts(storage, parsed))
    reads = persistently(lambda: [read_import(storage, parsed, str(source)) for source in imports])
    for line in lines:
        progress.line(line)
    experiment, changes = persistently(
        lambda: create_experiment(storage, started, settings.trainers, accept_trainer=accept_trainer)
    )
    if not persistently(lambda: is_finished(snapshot(experiment))):
        num_repeats = 1 + max(study.repeat for study in experiment.studies)
        for note in notes_on(parsed.model_copy(update={"repeats": num_repeats})):
            progress.line(f"note: {note}")
    for change in changes:
        progress.line(f"{experiment.name} extended: {change}")
    for line in persistently(lambda: [write_import(experiment, read) for read in reads]):
        progress.line(line)
    return _run(experiment, launcher, settings, options, progress)


def retry(
    name: str,
    *,
    launcher: str = "local",
    settings: Settings | None = None,
    options: LaunchOptions | None = None,
    progress: Progress | None = None,
) -> LoadedExperiment:
    """Runs the failed trials of an experiment again, and what else its budget has left, as ``hpo retry`` does.

    Raises:
        ExperimentError: if there is no such experiment, or this process does not have its trainer.
        HPOError: if the experiment cannot be finished.
    """
    settings = settings or Settings()
    options = options or make_options(launcher)
    check_launch(launcher, settings, options)
    check_writable(settings.checkpoints)
    load_trainers(settings.trainers)
    storage = open_storage(settings.storage, home=settings.home)
    experiment = load_experiment(storage, name)
    check_trainer(name, experiment.study_file.trainer, experiment.trainer_fields, experiment.content)
    return _run(experiment, launcher, settings, options, progress or PlainProgress())


def _run(
    experiment: Experiment, launcher: str, settings: Settings, options: LaunchOptions, progress: Progress
) -> LoadedExperiment:
    """Queues what failed, runs the experiment to its end and publishes the comparison."""
    for line in persistently(lambda: record_version(experiment)):
        progress.line(f"{experiment.name}: {line}")
    before = persistently(lambda: end_stop(experiment.storage.engine, experiment.study_ids, person()))
    if before.halt == "stopped":
        progress.line(f"{experiment.name} was {before.last}; this launch goes on with it")
    elif before.halt == "paused":
        resume = f"hpo resume {shlex.quote(experiment.name)}"
        progress.line(f"{experiment.name} was {before.last}: its workers wait for {resume}")
    if again := persistently(lambda: retry_failed(experiment.storage.engine, experiment.study_ids)):
        progress.line(f"{experiment.name}: {again} failed trials are tried again")
    if run_launcher(launcher, experiment, settings, options, progress):
        _publish(experiment, progress)
    elif not isinstance(progress, JsonProgress):  # its one object says that each study is finished
        progress.line(f"{experiment.name} is finished already; a larger budget goes on from there")
    return LoadedExperiment(experiment, settings)


def _publish(experiment: Experiment, progress: Progress) -> None:
    """Puts the comparison into Optuna's own pages. The results stand without it, so a failure is only a line."""
    from hpo.compare.publish import publish

    try:
        for study in publish(experiment.storage, experiment.name):
            progress.line(f"the note of {study} is a person's and stays as it is")
    except Exception as error:
        progress.line(f"the comparison could not be put into Optuna's pages: {type(error).__name__}: {error}")


def load(
    name: str, *, storage: str | None = None, home: str | Path | None = None, settings: Settings | None = None
) -> LoadedExperiment:
    """The experiment of that name; needs none of its trainers.

    Raises:
        ExperimentError: with the near miss, if there is none.
    """
    chosen = (settings or Settings()).replaced(storage=storage, home=home)
    return LoadedExperiment(load_experiment(open_storage(chosen.storage, home=chosen.home), name), chosen)


def train(
    file: str | Path,
    *,
    seeds: int | None = None,
    trainers: Trainers | None = None,
    data_dir: str | Path | None = None,
    settings: Settings | None = None,
    report: Callable[[int, int, dict[str, float]], None] | None = None,
    diagnose: str | Path | None = None,
    attach: bool = False,
    model: str | Path | None = None,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
) -> dict[str, Any]:
    """Trains an exported file, as ``hpo train`` does; returns what ``hpo train --json`` prints.

    Args:
        trainers: modules or functions with trainers of your own.
        seeds: number of fresh seeds to train with, in place of the file's own.
        report: called after each epoch with the seed, the epoch from 1 and its metrics.
        diagnose: folder for diagnostics of the network that the file's own seed gives, which is trained beside the
            ``seeds`` if there are any; ``attach`` puts them beside the study in the dashboard.
        model: file to write the trained model to.
        folder: folder for what the training code writes into ``run.folder``; a new one in the home without it.
        resume: folder for the state of the training, from which the same call goes on if it is interrupted.
    """
    from hpo.export.train_file import train_file

    return train_file(
        file,
        (settings or Settings()).replaced(data_dir=data_dir, trainers=trainer_modules(trainers)),
        seeds=seeds,
        report=report,
        diagnose=diagnose,
        attach=attach,
        model=model,
        folder=folder,
        resume=resume,
    ).as_dict()


def _check_modules_of_before(study: Source, settings: Settings) -> None:
    """Raises MissingTrainerError if the file's experiment exists and was launched with modules that were not given."""
    if not isinstance(study, str | Path) or "\n" in str(study) or not Path(study).is_file():
        return
    content = read_table(study)
    name, trainer = content.get("name"), content.get("trainer")
    may_exist = settings.storage is not None or (settings.home_path / "postgres").exists()
    if not isinstance(name, str) or not isinstance(trainer, str) or trainer in TRAINERS or not may_exist:
        return
    modules = ""
    with contextlib.suppress(ExperimentError, StorageError):
        before = load_experiment(open_storage(settings.storage, home=settings.home), name)
        modules = before.trainer_modules if before.trainer == trainer else ""
    if modules:
        raise missing_trainer(name, trainer, modules) from None
