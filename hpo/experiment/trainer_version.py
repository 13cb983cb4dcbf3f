"""Which version of a trainer's code trained what: a hash of its source file, and the commit of its repository.

A configuration says what a trial was given, not what the code did with it. So a launch records the version of the
trainer's source, each trial carries the hash of what trained it, and an experiment whose trials come from several
versions says so.
"""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hpo.database import attributes
from hpo.experiment.experiment import Experiment
from hpo.trainers.registry import TRAINERS

SHOWN_DIGITS = 8


@dataclass(frozen=True)
class TrainerVersion:
    """The version of a trainer's code.

    Attributes:
        source: ``sha256:...`` of its source files; of a trainer of the package its version, ``hpo-service 0.2.0``.
        files: names of the source files that were hashed.
        commit: the commit of the repository that holds the first of them, if there is one.
        uncommitted: whether that repository has changes beside the commit.
    """

    source: str
    files: tuple[str, ...] = ()
    commit: str | None = None
    uncommitted: bool = False

    def __str__(self) -> str:
        text = short_source(self.source)
        if self.commit is not None:
            text += f" (commit {self.commit[:SHOWN_DIGITS]}{' and uncommitted changes' if self.uncommitted else ''})"
        return text


def short_source(source: str) -> str:
    """A version's source with the first digits of its hash."""
    kind, _, digest = source.partition("sha256:")
    return f"{kind}sha256:{digest[:SHOWN_DIGITS]}" if digest else source


def source_files(trainer: str, study_file: Mapping[str, Any] | None = None) -> list[Path]:
    """The user's files with the trainer's code: its module, for a program the scripts in its command; [] for ours.

    A network or a data set of the user's own for the classifier counts too.
    """
    entry = TRAINERS.get(trainer)
    if entry is None:
        return []
    modules = [entry.source_module, *(entry.more_modules() if entry.more_modules is not None else ())]
    paths = [path for module in modules if (path := _file_of(module)) is not None]
    command = (study_file or {}).get("command")
    if isinstance(command, list):
        paths += [Path(word).resolve() for word in command if isinstance(word, str) and Path(word).is_file()]
    return list(dict.fromkeys(paths))


def _file_of(module: str) -> Path | None:
    """The file of a user's module, which may be named by its path."""
    if module.partition(".")[0] == "hpo":
        return None
    file = module if module.endswith(".py") else getattr(sys.modules.get(module), "__file__", None)
    return Path(file).resolve() if file and Path(file).is_file() else None


def trainer_version(
    trainer: str, study_file: Mapping[str, Any] | None = None, *, with_commit: bool = True
) -> TrainerVersion:
    """The version of the trainer in this process; without the user's files, that of this package.

    The repository is that of the first of the files, or of the current folder if there are none.
    """
    files = source_files(trainer, study_file)
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    entry = TRAINERS.get(trainer)
    of_package = entry is None or entry.source_module.startswith("hpo.")
    parts = [f"hpo-service {package_version()}"] if of_package else []
    parts += [f"sha256:{digest.hexdigest()}"] if files else []
    commit, uncommitted = _commit(files[0].parent if files else Path.cwd()) if with_commit else (None, False)
    return TrainerVersion(" ".join(parts) or "unknown", tuple(path.name for path in files), commit, uncommitted)


def record_version(experiment: Experiment) -> list[str]:
    """Keeps this process's version of the trainer with the experiment's studies.

    Returns a line if trials of the experiment were trained by another version; [] if not.
    """
    with experiment.storage.engine.begin() as connection:
        return _record(connection, experiment.study_ids, experiment.trainer, experiment.content)


def _record(
    connection: sa.Connection, study_ids: Sequence[int], trainer: str, study_file: Mapping[str, Any]
) -> list[str]:
    version = trainer_version(trainer, study_file)
    recorded = recorded_versions(connection, study_ids)
    lines = []
    if recorded and version.source not in recorded and _has_trials(connection, study_ids):
        before = list(recorded.values())[-1]
        what = f" ({', '.join(version.files)})" if version.files else ""
        lines.append(
            f"the code of the trainer {trainer!r}{what} has changed since the experiment was last launched: {before} "
            f"before, {version} now; its trials come from both versions"
        )
    if version.source not in recorded:
        recorded[version.source] = version
        for study_id in study_ids:
            connection.execute(
                sa.text(
                    "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (:s, :k, :v) "
                    "ON CONFLICT (study_id, key) DO UPDATE SET value_json = :v"
                ),
                {
                    "s": study_id,
                    "k": attributes.TRAINER_VERSIONS,
                    "v": json.dumps([asdict(each) for each in recorded.values()]),
                },
            )
    return lines


VERSIONS = "SELECT value_json FROM study_user_attributes WHERE key = :key AND study_id = ANY(:ids) ORDER BY study_id"


def recorded_versions(connection: sa.Connection, study_ids: Sequence[int]) -> dict[str, TrainerVersion]:
    """The versions that the experiment was launched with, by their source, the oldest first."""
    rows = connection.execute(sa.text(VERSIONS), {"key": attributes.TRAINER_VERSIONS, "ids": list(study_ids)})
    found: dict[str, TrainerVersion] = {}
    for (text,) in rows:
        for version in versions_from_json(json.loads(text)):
            found.setdefault(version.source, version)
    return found


def versions_from_json(content: Any) -> list[TrainerVersion]:
    """The versions in a study's attribute; what a person has put there otherwise is left out."""
    found = []
    for item in content if isinstance(content, list) else []:
        if isinstance(item, dict) and isinstance(item.get("source"), str):
            files = item.get("files")
            commit = item.get("commit")
            found.append(
                TrainerVersion(
                    item["source"],
                    tuple(map(str, files)) if isinstance(files, list) else (),
                    commit if isinstance(commit, str) else None,
                    item.get("uncommitted") is True,
                )
            )
    return found


def package_version() -> str:
    try:
        return importlib.metadata.version("hpo-service")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _has_trials(connection: sa.Connection, study_ids: Sequence[int]) -> bool:
    query = "SELECT EXISTS (SELECT 1 FROM trials WHERE study_id = ANY(:ids) AND state <> 'WAITING')"
    return bool(connection.execute(sa.text(query), {"ids": list(study_ids)}).scalar())


def _commit(folder: Path) -> tuple[str | None, bool]:
    """The commit of the repository that holds the folder, and whether there are changes beside it."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, False
    changed = _git(folder, "status", "--porcelain")
    # A repository too large to be looked through in time counts as changed.
    return commit.strip(), changed is None or changed != ""


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
