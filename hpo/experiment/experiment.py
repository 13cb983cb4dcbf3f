"""An experiment: the Optuna studies of one study file, one for each sampler and repeat, made together or not at all."""

import functools
import json
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes, imported, steering
from hpo.database.storage import Storage
from hpo.database.study_budget import set_budget
from hpo.errors import ExperimentError, StudyFileError
from hpo.experiment import stored
from hpo.experiment.config_changes import changes
from hpo.experiment.config_schema import fingerprint, shown_changes
from hpo.search.objectives import Objective, objectives_of
from hpo.search.sampler_registry import SAMPLERS, SamplerSpec
from hpo.studyfile.load import study_file_from_json
from hpo.studyfile.model import StudyFile
from hpo.trainers.protocol import Direction
from hpo.trainers.registry import TRAINERS


@dataclass(frozen=True)
class StudyHandle:
    """One study of an experiment. ``key`` names its checkpoints: no two studies ever share one."""

    study_id: int
    name: str
    sampler: SamplerSpec
    repeat: int
    key: str


@dataclass(frozen=True, eq=False)
class Experiment:
    """An experiment in a storage.

    Everything but :attr:`study_file` comes from the database alone, so it is there without the trainer's code.

    Attributes:
        content: the stored study file as JSON.
        trainer_fields: the trainer's configuration that it was made with, see :mod:`hpo.experiment.config_schema`.
        trainer_modules: ``--trainers`` of the launch that made it, a suggestion for a person; "" if not recorded.
        cache: what :mod:`hpo.experiment.status` keeps between two looks.
    """

    storage: Storage
    content: Mapping[str, Any]
    studies: tuple[StudyHandle, ...]
    trainer_fields: dict[str, str] | None = None
    trainer_modules: str = ""
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return str(self.content["name"])

    @property
    def trainer(self) -> str:
        return str(self.content["trainer"])

    @property
    def metric(self) -> str:
        return str(self.content["metric"])

    @property
    def direction(self) -> Direction:
        return "maximize" if self.content["direction"] == "maximize" else "minimize"

    @property
    def maximize(self) -> bool:
        return self.direction == "maximize"

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The one or two metrics that are optimized; :attr:`metric` is the first."""
        return objectives_of(self.content)

    @property
    def study_ids(self) -> list[int]:
        return [study.study_id for study in self.studies]

    @functools.cached_property
    def study_file(self) -> StudyFile:
        """The study file as an object, checked with this process's trainers.

        Raises:
            ExperimentError: if they do not fit it (another version, or one that was not imported), with the modules
                that the experiment was launched with.
        """
        return read_stored_file(self.content, self.trainer_modules)


def experiment_names(storage: Storage) -> list[str]:
    """The experiments in the storage, in the order in which they were made."""
    with storage.engine.connect() as connection:
        return stored.names(connection)


def load_experiment(storage: Storage, name: str) -> Experiment:
    """The experiment of that name. Needs none of its trainers.

    Raises:
        ExperimentError: if there is no such experiment, with the near miss.
    """
    with storage.engine.connect() as connection:
        rows = stored.study_rows(connection, name)
        if not rows:
            raise stored.unknown_experiment(name, stored.names(connection), storage.address)
    attrs = rows[0][2]
    content = attrs[attributes.STUDY_FILE]
    samplers = {entry["label"]: _sampler(entry) for entry in content["samplers"]}
    order = {label: index for index, label in enumerate(samplers)}
    studies = [
        StudyHandle(study_id, study_name, samplers[of[attributes.SAMPLER]], of[attributes.REPEAT], of[attributes.KEY])
        for study_id, study_name, of in rows
        if of.get(attributes.SAMPLER) in samplers
    ]
    studies.sort(key=lambda study: (study.repeat, order[study.sampler.label]))
    return Experiment(
        storage, content, tuple(studies), attrs.get(attributes.TRAINER_FIELDS), stored.trainer_modules(attrs)
    )


def _sampler(entry: Mapping[str, Any]) -> SamplerSpec:
    options = {key: value for key, value in entry.items() if key not in ("name", "label")}
    return SamplerSpec(entry["name"], entry["label"], SAMPLERS[entry["name"]].options.model_validate(options))


def create_experiment(
    storage: Storage, study_file: StudyFile, trainer_modules: str = "", *, accept_trainer: bool = False
) -> tuple[Experiment, list[str]]:
    """Makes the experiment's studies, or those that a larger budget adds, in one transaction; may be repeated.

    ``trainer_modules`` is what ``--trainers`` named. ``accept_trainer`` goes on with another version of the trainer;
    then the metric and fixed values may have other names than in the stored study file.

    Returns the experiment and what changed against the stored study
    file, as lines; [] for a new or equal one.

    Raises:
        ExperimentError: if an experiment of that name was made from another study file or with another version of the
            trainer, or if the name of a study is taken by one that is not ours.
    """
    with storage.engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305199, hashtext(:name))"), {"name": study_file.name})
        rows = stored.study_rows(connection, study_file.name)
        differences: list[str] = []
        made_with: dict[str, str] | None = None
        if rows:
            attrs = rows[0][2]
            before = read_stored_file(attrs[attributes.STUDY_FILE], stored.trainer_modules(attrs))
            study_file = study_file.continued(before)
            if steering.keeps_extension(connection, [of[0] for of in rows]) and before.budget.includes(
                study_file.budget
            ):
                study_file = study_file.model_copy(update={"budget": before.budget})
            differences = study_file.differences(before)
            comparable = _renamed(study_file, before) if accept_trainer else study_file
            if differences and not comparable.is_extension_of(before):
                raise ExperimentError(
                    f"the experiment {study_file.name!r} was made from another study file:\n"
                    + "\n".join(f"  {line}" for line in differences)
                    + "\ngive this one another name, or delete that one first: hpo delete "
                    + shlex.quote(study_file.name)
                    + ("" if accept_trainer or not _renamed(study_file, before).is_extension_of(before) else RENAMED)
                )
            made_with = attrs.get(attributes.TRAINER_FIELDS)
            if not accept_trainer:
                check_trainer(study_file.name, study_file.trainer, made_with, attrs[attributes.STUDY_FILE])
        else:
            study_file = study_file.begun()
        fields = fingerprint(TRAINERS[study_file.trainer].config)
        # By sampler and repeat: a study that got another name in the database is still the same study.
        known = {(of.get(attributes.SAMPLER), of.get(attributes.REPEAT)): study_id for study_id, _, of in rows}
        for study_name, sampler, repeat in study_file.study_names():
            study_id = known.get((sampler.label, repeat))
            if study_id is None:
                study_id = _insert_study(connection, study_name, study_file, sampler, repeat)
                if sampler.takes_imported:
                    _copy_imported(connection, [of_study[0] for of_study in rows], study_id)
            elif differences:
                _set_attribute(connection, study_id, attributes.STUDY_FILE, study_file.to_json())
            if rows and made_with != fields:
                _set_attribute(connection, study_id, attributes.TRAINER_FIELDS, fields)
            if trainer_modules:
                _set_attribute(connection, study_id, attributes.TRAINER_MODULES, trainer_modules)
            budget = study_file.budget_for(sampler)
            set_budget(
                connection,
                study_id,
                budget.trials,
                budget.epochs,
                study_file.epochs_per_trial() or study_file.num_seeds,
                seeds=study_file.num_seeds,
                num_seconds=budget.time,
                gpus=study_file.gpus_per_trial if budget.counts_gpus else None,
                stop_at=study_file.target if study_file.stop_at_target else None,
                maximize=study_file.direction == "maximize",
            )
        if rows:
            steering.spread(connection, [of[0] for of in stored.study_rows(connection, study_file.name)])
    return load_experiment(storage, study_file.name), differences


RENAMED = (
    "\nif the trainer is the same under other names, its trials can count as trials of this version: "
    "hpo launch ... --accept-trainer"
)


def _renamed(study_file: StudyFile, before: StudyFile) -> StudyFile:
    """The file with the metric and the fixed values of another: they may be the same under other names."""
    return study_file.model_copy(update={"metric": before.metric, "fixed": before.fixed})


def _insert_study(
    connection: sa.Connection, study_name: str, study_file: StudyFile, sampler: SamplerSpec, repeat: int
) -> int:
    inserted = connection.execute(
        sa.text("INSERT INTO studies (study_name) VALUES (:n) ON CONFLICT DO NOTHING RETURNING study_id"),
        {"n": study_name},
    ).first()
    if inserted is None:
        raise ExperimentError(
            f"a study called {study_name!r} is there already and was not made by an experiment: "
            "rename this experiment, or delete that study"
        )
    study_id = int(inserted[0])
    insert = "INSERT INTO study_directions (direction, study_id, objective) VALUES (CAST(:d AS studydirection), :s, :o)"
    for number, objective in enumerate(study_file.objectives):
        connection.execute(sa.text(insert), {"d": objective.direction.upper(), "s": study_id, "o": number})
    for key, value in {
        attributes.EXPERIMENT: study_file.name,
        attributes.SAMPLER: sampler.label,
        attributes.REPEAT: repeat,
        attributes.STUDY_FILE: study_file.to_json(),
        attributes.TRAINER_FIELDS: fingerprint(TRAINERS[study_file.trainer].config),
        attributes.KEY: secrets.token_hex(8),
    }.items():
        _set_attribute(connection, study_id, key, value)
    return study_id


def _copy_imported(connection: sa.Connection, others: list[int], study_id: int) -> None:
    """Gives a study that a larger experiment adds the imported trials of those that were there."""
    found = [trial for other in others for trial in imported.of_study(connection, other)]
    imported.add(connection, study_id, {trial.content: trial for trial in found}.values())


def _set_attribute(connection: sa.Connection, study_id: int, key: str, value: Any) -> None:
    connection.execute(
        sa.text(
            "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (:s, :k, :v) "
            "ON CONFLICT (study_id, key) DO UPDATE SET value_json = :v"
        ),
        {"s": study_id, "k": key, "v": json.dumps(value)},
    )


def read_stored_file(content: Mapping[str, Any], trainer_modules: str = "") -> StudyFile:
    """The study file that the database holds, checked with the trainers of this process.

    Raises:
        ExperimentError: if its trainer was not imported here, or this version cannot read it.
    """
    name = str(content["name"])
    try:
        study_file = study_file_from_json(content)
    except StudyFileError as error:
        raise ExperimentError(
            f"the experiment {name!r} was made by another version of hpo:\n"
            + "\n".join(f"  {mistake}" for mistake in error.mistakes)
        ) from None
    if study_file.trainer not in TRAINERS:
        raise missing_trainer(name, study_file.trainer, trainer_modules)
    return study_file


class MissingTrainerError(ExperimentError):
    """This process has not imported an experiment's trainer; ``modules`` is what it was launched with, or "".

    The command line adds the whole command.
    """

    def __init__(self, message: str, modules: str) -> None:
        super().__init__(message)
        self.modules = modules


def missing_trainer(name: str, trainer: str, modules: str) -> MissingTrainerError:
    """The error for an experiment whose trainer this process has not imported."""
    where = (
        f"it was launched with --trainers {shlex.quote(modules)}, and nothing imports what a database names"
        if modules
        else "name its module with --trainers, or set HPO_TRAINERS"
    )
    return MissingTrainerError(
        f"the experiment {name!r} trains with {trainer!r}, which this process does not have; {where}", modules
    )


def check_trainer(
    name: str, trainer: str, made_with: dict[str, str] | None, study_file: Mapping[str, Any] | None = None
) -> None:
    """Checks that what is trained here belongs to the same experiment: the configurations must mean the same.

    ``study_file`` is the stored one, whose values decide whether a narrower bound matters.

    Raises:
        ExperimentError: if this process's trainer has another configuration than the one ``made_with``.
    """
    if made_with is None or trainer not in TRAINERS:
        return
    if lines := changes(made_with, fingerprint(TRAINERS[trainer].config), study_file):
        raise ExperimentError(
            f"the trainer {trainer!r} here is another version than the one that the experiment {name!r} was made with: "
            f"{shown_changes(lines)}; take that version, launch under another name, or let its trials count as trials "
            "of this version: hpo launch ... --accept-trainer"
        )
