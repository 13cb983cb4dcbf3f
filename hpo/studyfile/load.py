"""Loads study files: from a path, from TOML text, from the JSON kept in the database."""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from hpo.errors import StudyFileError, UsageError
from hpo.studyfile.hints import not_a_study_file
from hpo.studyfile.model import StudyFile
from hpo.studyfile.objective import with_objective
from hpo.studyfile.parse import read_study_file
from hpo.studyfile.validation import Mistakes
from hpo.trainers.errors import TrainerError
from hpo.trainers.loading import load_trainers


def load_study_file(path: str | Path, trainers: str | Iterable[str] = ()) -> StudyFile:
    """Reads a study file: TOML, or JSON where the name ends in ``.json``.

    ``trainers`` are modules with trainers of the user's own, as for :func:`hpo.trainers.loading.load_trainers`.

    Raises:
        StudyFileError: with all mistakes at once; also where there is no such file.
        UsageError: where a module of ``trainers`` cannot be imported.
    """
    try:
        load_trainers(trainers)
    except TrainerError as error:
        raise UsageError(str(error)) from error
    path = Path(path)
    return parse_study_file(with_objective(read_table(path), path), str(path))


def read_table(path: str | Path) -> dict[str, Any]:
    """The table that a file holds, unchecked: TOML, or JSON where the name ends in ``.json``.

    Raises:
        StudyFileError: if it cannot be read, or is neither.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StudyFileError(str(path), [f"cannot be read: {error.strerror}{_near_file(path)}"]) from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise StudyFileError(str(path), [f"line {line}: byte {data[error.start]:#04x} is not UTF-8 text"]) from None
    if (instead := not_a_study_file(path.name)) is not None:
        raise StudyFileError(str(path), [instead])
    try:
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except RecursionError:
        raise StudyFileError(str(path), ["nested too deeply to be a study file"]) from None
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        instead = not_a_study_file(path.name, text)
        raise StudyFileError(str(path), [instead or f"not {kind}: {error}"]) from None
    if not isinstance(content, dict):
        raise StudyFileError(str(path), ["not a study file: expected an object with the key name and others"])
    return content


def _near_file(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return f"; there is no folder {path.parent}" if not path.parent.is_dir() else ""
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f" (did you mean {str(path.with_name(close[0]))!r}?)" if close and not path.exists() else ""


def parse_study_file(data: dict[str, Any], source: str) -> StudyFile:
    """The study file of what TOML or JSON gave; trainers are looked up in :data:`hpo.trainers.registry.TRAINERS`.

    Raises:
        StudyFileError: with all mistakes at once; ``source`` names the file in its message.
    """
    return read_study_file(data, source)


def study_file_from_json(data: Mapping[str, Any]) -> StudyFile:
    """The study file that the database keeps as JSON: the inverse of :meth:`StudyFile.to_json`.

    It was checked when it was launched, so nothing is checked again, and the trainer need not be there.

    Raises:
        StudyFileError: if this version does not have what the file names, such as a sampler.
    """
    try:
        return StudyFile.model_validate(dict(data))
    except pydantic.ValidationError as error:
        mistakes = Mistakes()
        mistakes.add_errors(error, data, known=list(StudyFile.model_fields))
        raise StudyFileError("the stored study file", mistakes.lines) from None
