"""An experiment: the Optuna studies of one study file, one for each sampler and repeat, made together or not at all."""

import json
import secrets
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes, claims
from hpo.database.storage import Storage
from hpo.errors import ExperimentError, StudyFileError, near_miss
from hpo.experiment.config_schema import changes, fingerprint, shown_changes
from hpo.search.sampler_registry import SamplerSpec
from hpo.studyfile.load import study_file_from_json
from hpo.studyfile.model import StudyFile
from hpo.studyfile.validation import near_or_all
from hpo.trainers.registry import TRAINERS


@dataclass(frozen=True)
class StudyHandle:
    """One study of an experiment. ``key`` names its checkpoints: no two studies ever share one."""

    study_id: int
    name: str
    sampler: SamplerSpec
    repeat: int
    key: str


@dataclass(frozen=True)
class Experiment:
    """A study file and its studies in a storage.

    ``trainer_fields``: the trainer's configuration that it was made with, see :mod:`hpo.experiment.config_schema`.
    """

    storage: Storage
    study_file: StudyFile
    studies: tuple[StudyHandle, ...]
    trainer_fields: dict[str, str] | None = None

    @property
    def name(self) -> str:
        return self.study_file.name

    @property
    def study_ids(self) -> list[int]:
        return [study.study_id for study in self.studies]


STUDIES = """
SELECT s.study_id, s.study_name, json_object_agg(a.key, a.value_json)::text
FROM studies s JOIN study_user_attributes a USING (study_id)
WHERE a.key LIKE 'hpo:%' AND s.study_id IN (
    SELECT study_id FROM study_user_attributes
    WHERE key = :experiment_key AND (CAST(:name_json AS text) IS NULL OR value_json = :name_json))
GROUP BY s.study_id, s.study_name ORDER BY s.study_id
"""


def _read(connection: sa.Connection, name: str | None) -> list[tuple[int, str, dict[str, Any]]]:
    parameters = {
        "experiment_key": attributes.EXPERIMENT,
        "name_json": None if name is None else json.dumps(name),
    }
    rows = connection.execute(sa.text(STUDIES), parameters)
    return [
        (study_id, study_name, {key: json.loads(value) for key, value in json.loads(attrs).items()})
        for study_id, study_name, attrs in rows
    ]


def experiment_names(storage: Storage) -> list[str]:
    """The experiments in the storage, in the order in which they were made."""
    with storage.engine.connect() as connection:
        return list(dict.fromkeys(attrs[attributes.EXPERIMENT] for _, _, attrs in _read(connection, None)))


def create_experiment(storage: Storage, study_file: StudyFile) -> tuple[Experiment, list[str]]:
    """Makes the experiment's studies, or those that a larger budget adds, in one transaction; may be repeated.

    Returns the experiment and what changed against the stored study file, as lines; [] for a new or equal one.

    Raises:
        ExperimentError: where an experiment of that name was made from another study file or with another version
            of the trainer, or where the name of a study is taken by one that is not ours.
    """
    with storage.engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7305199, hashtext(:name))"), {"name": study_file.name})
        rows = _read(connection, study_file.name)
        differences: list[str] = []
        if rows:
            stored = stored_study_file(rows[0][2])
            differences = study_file.differences(stored)
            if differences and not study_file.is_extension_of(stored):
                raise ExperimentError(
                    f"the experiment {study_file.name!r} was made from another study file:\n"
                    + "\n".join(f"  {line}" for line in differences)
                    + f"\ngive this one another name, or delete that one first: hpo delete {study_file.name}"
                )
            check_trainer(study_file.name, study_file.trainer, rows[0][2].get(attributes.TRAINER_FIELDS))
        known = {study_name: study_id for study_id, study_name, _ in rows}
        for study_name, sampler, repeat in study_file.study_names():
            study_id = known.get(study_name)
            if study_id is None:
                study_id = _insert_study(connection, study_name, study_file, sampler, repeat)
            elif differences:
                _set_attribute(connection, study_id, attributes.STUDY_FILE, study_file.to_json())
            budget = study_file.budget_for(sampler)
            claims.set_budget(connection, study_id, budget.trials, budget.epochs, study_file.max_epochs() or 1)
    return load_experiment(storage, study_file.name), differences


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
    connection.execute(
        sa.text(
            "INSERT INTO study_directions (direction, study_id, objective) VALUES (CAST(:d AS studydirection), :s, 0)"
        ),
        {"d": study_file.direction.upper(), "s": study_id},
    )
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


def _set_attribute(connection: sa.Connection, study_id: int, key: str, value: Any) -> None:
    connection.execute(
        sa.text(
            "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (:s, :k, :v) "
            "ON CONFLICT (study_id, key) DO UPDATE SET value_json = :v"
        ),
        {"s": study_id, "k": key, "v": json.dumps(value)},
    )


def stored_study_file(attrs: dict[str, Any]) -> StudyFile:
    """The study file that a study's attributes hold.

    Raises:
        ExperimentError: if its trainer was not imported here, or this version cannot read it.
    """
    name = attrs[attributes.EXPERIMENT]
    try:
        study_file = study_file_from_json(attrs[attributes.STUDY_FILE])
    except StudyFileError as error:
        raise ExperimentError(
            f"the experiment {name!r} was made by another version of hpo:\n"
            + "\n".join(f"  {mistake}" for mistake in error.mistakes)
        ) from None
    if study_file.trainer not in TRAINERS:
        raise ExperimentError(
            f"the experiment {name!r} does not fit the trainers of this process (name their modules with --trainers or "
            f"HPO_TRAINERS): unknown trainer {study_file.trainer!r}{near_or_all(study_file.trainer, list(TRAINERS))}"
        )
    return study_file


def check_trainer(name: str, trainer: str, made_with: dict[str, str] | None) -> None:
    """Whether what is trained here belongs to the same experiment: the configurations must mean the same.

    Raises:
        ExperimentError: where this process's trainer has another configuration than the one ``made_with``.
    """
    if made_with is None or trainer not in TRAINERS:
        return
    if lines := changes(made_with, fingerprint(TRAINERS[trainer].config)):
        raise ExperimentError(
            f"the trainer {trainer!r} here is another version than the one that the experiment {name!r} was made with: "
            f"{shown_changes(lines)}; take that version, or launch under another name"
        )


def load_experiment(storage: Storage, name: str) -> Experiment:
    """Raises ExperimentError where there is no such experiment, with the near miss."""
    with storage.engine.connect() as connection:
        rows = _read(connection, name)
    if not rows:
        known = experiment_names(storage)
        hint = near_miss(name, known) or (f"; there are {', '.join(known[:8])}" if known else "; there is none yet")
        raise ExperimentError(f"there is no experiment {name!r} at {storage.address}{hint}")
    study_file = stored_study_file(rows[0][2])
    labels = {sampler.label: sampler for sampler in study_file.samplers}
    studies = [
        StudyHandle(
            study_id, study_name, labels[attrs[attributes.SAMPLER]], attrs[attributes.REPEAT], attrs[attributes.KEY]
        )
        for study_id, study_name, attrs in rows
        if attrs[attributes.SAMPLER] in labels
    ]
    order = {study_name: index for index, (study_name, _, _) in enumerate(study_file.study_names())}
    ordered = tuple(sorted(studies, key=lambda study: order.get(study.name, 0)))
    return Experiment(storage, study_file, ordered, rows[0][2].get(attributes.TRAINER_FIELDS))


def experiment_rows(storage: Storage, name: str) -> list[tuple[int, str, dict[str, Any]]]:
    """(study id, study name, our attributes) of each study of the experiment; [] where there is none."""
    with storage.engine.connect() as connection:
        return _read(connection, name)
