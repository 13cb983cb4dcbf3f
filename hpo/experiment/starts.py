"""First configurations from elsewhere: ``like = [...]`` and ``--like NAME``, and ``portfolio = true``.

A launch that makes an experiment looks the configurations up once and keeps them in the record (the key ``starts`` of
the stored study file), so that every worker tries the same ones, and so that the experiment goes on if an earlier one
is deleted. They are trials of the budget like any other, and each carries :data:`attributes.START`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hpo.database.storage import Storage
from hpo.errors import ExperimentError, UsageError
from hpo.experiment.experiment import Experiment, experiment_names, load_experiment
from hpo.experiment.results import BestTrial, best_trials
from hpo.search.space import Space
from hpo.search.transfer import Translated, translate
from hpo.studyfile.configuration import base_values, flat_values
from hpo.studyfile.model import StudyFile
from hpo.studyfile.validation import shown
from hpo.trainers.registry import TRAINERS


def with_like(study_file: StudyFile, names: Sequence[str]) -> StudyFile:
    """The study file with earlier experiments beside those of its key ``like``."""
    if not names:
        return study_file
    return study_file.model_copy(update={"like": list(dict.fromkeys([*(study_file.like or []), *names]))})


def with_starts(storage: Storage, study_file: StudyFile) -> tuple[StudyFile, list[str]]:
    """The study file with its first configurations from elsewhere, and a line on each for the person who launches.

    An experiment that is there already has its own, so nothing is looked up for it.

    Raises:
        UsageError: for an earlier experiment with another trainer, metric or direction.
        ExperimentError: for one that does not exist, has no result, or of which nothing fits.
    """
    if not (study_file.like or study_file.portfolio) or study_file.name in experiment_names(storage):
        return study_file, []
    starts: list[dict[str, Any]] = []
    lines: list[str] = []
    tried = [dict(values) for values in study_file.try_first]
    for name in dict.fromkeys(study_file.like or ()):
        start, what = _start_of(storage, study_file, name)
        if start["values"] in tried:
            lines.append(f"{what}; it is tried already, so it is left out")
            continue
        tried.append(start["values"])
        starts.append(start)
        lines.append(what)
    if study_file.portfolio:
        ready = [start for start in _portfolio(study_file) if start["values"] not in tried]
        starts += ready
        lines.append(f"first trials: {len(ready)} configurations of the portfolio of {study_file.trainer}")
    return study_file.model_copy(update={"starts": starts}), lines


def _portfolio(study_file: StudyFile) -> list[dict[str, Any]]:
    """The trainer's portfolio as far as it fits: an entry says nothing of a file that fixes another choice than it has.

    Raises:
        ExperimentError: if nothing of it fits.
    """
    made = TRAINERS[study_file.trainer].portfolio
    space = study_file.space
    starts: list[dict[str, Any]] = []
    for number, entry in enumerate(made() if made is not None else ()):
        others = base_values(study_file.fields, entry, study_file.fixed)
        found = translate(space, entry)
        differs = any(
            isinstance(value, str) and others.get(name) != value
            for name, value in entry.items()
            if name not in space.parameters
        )
        drops = any(isinstance(value, str) for value in found.dropped.values())
        known = [start["values"] for start in starts]
        if found.values and not (differs or drops) and found.values not in known and not space.rules_out(found.values):
            starts.append({"values": found.values, "portfolio": number})
    if not starts:
        searched = ", ".join(space.parameters) or "nothing"
        raise ExperimentError(
            f"portfolio: nothing of the portfolio of {study_file.trainer} fits {study_file.name!r}, which searches "
            f"{searched}; leave portfolio out"
        )
    return starts


def comparable_experiment(storage: Storage, study_file: StudyFile, name: str, option: str) -> Experiment:
    """The earlier experiment ``name``, checked to measure the same as ``study_file``; ``option`` names it in errors."""
    if name == study_file.name:
        raise UsageError(f"{option}: {name!r} is the experiment itself; expected an earlier one")
    earlier = load_experiment(storage, name)
    for what, theirs, ours in (
        ("trainer", earlier.trainer, study_file.trainer),
        ("metric", earlier.metric, study_file.metric),
        ("direction", earlier.direction, study_file.direction),
    ):
        if theirs != ours:
            raise UsageError(
                f"{option}: the experiment {name!r} has the {what} {theirs!r}, and {study_file.name!r} has {ours!r}; "
                f"expected an experiment with the same {what}"
            )
    return earlier


def _start_of(storage: Storage, study_file: StudyFile, name: str) -> tuple[dict[str, Any], str]:
    """What the record keeps of the best configuration of an earlier experiment, and the line on it."""
    best = best_trials(comparable_experiment(storage, study_file, name, "like"))[0]
    found = _in_space(study_file, best)
    source = f"the best of {name} ({study_file.metric} {best.value:.6g}, trial {best.number} of {best.study})"
    if not found.values:
        dropped = ", ".join(f"{key} = {shown(value)}" for key, value in found.dropped.items()) or "no value of it"
        raise ExperimentError(
            f"like: nothing of {source} fits the space of {study_file.name!r}: {dropped}; leave {name!r} out, or widen "
            "[space]"
        )
    if not TRAINERS[study_file.trainer].suggests:
        _check_whole(study_file, found, source, name)
    values = ", ".join(f"{key} = {shown(value)}" for key, value in found.values.items())
    what = f"first trials: {source}, {values}"
    if found.moved:
        what += "; moved from " + ", ".join(f"{key} = {shown(value)}" for key, value in found.moved.items())
    if found.dropped:
        what += "; does not fit and is drawn: " + ", ".join(f"{k} = {shown(v)}" for k, v in found.dropped.items())
    start = {
        "values": found.values,
        "experiment": name,
        "study": best.study,
        "trial": best.number,
        "value": best.value,
        **({"moved": found.moved} if found.moved else {}),
        **({"dropped": found.dropped} if found.dropped else {}),
    }
    return start, what


def _in_space(study_file: StudyFile, best: BestTrial) -> Translated:
    if TRAINERS[study_file.trainer].suggests:
        # An objective shows its ranges only while it runs: what does not fit then is drawn.
        fixed = study_file.fixed
        return Translated({k: v for k, v in flat_values(best.given).items() if k not in fixed})
    return translate(study_file.space, known_values(study_file, study_file.space, best.given))


def known_values(study_file: StudyFile, space: Space, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the parameters of a space are in a configuration of an earlier experiment, its defaults included."""
    return base_values(study_file.fields, space.parameters, given)


def _check_whole(study_file: StudyFile, found: Translated, source: str, name: str) -> None:
    """Checks that the values can be trained, as far as they say it without those that are drawn."""
    space = study_file.space
    is_whole = all(key in found.values for key in space.order if space.is_active(key, found.values))
    refusal = study_file.refusal(found.values) if is_whole else None
    if space.rules_out(found.values):
        refusal = "the study file forbids it"
    if refusal is not None:
        raise ExperimentError(f"like: {source} cannot be trained here: {refusal}; leave {name!r} out")
