"""The keys ``metric`` and ``direction`` as lists of two, and what a file with two objectives must not have.

Also the check of measured constraints, which are on metrics too.
"""

from collections.abc import Mapping
from typing import Any

from hpo.search.sampler_registry import SAMPLERS
from hpo.studyfile.model import StudyFile
from hpo.studyfile.validation import Mistakes, shown, toml_path
from hpo.trainers.registry import TRAINERS


def split_objectives(data: Mapping[str, Any], mistakes: Mistakes) -> dict[str, Any]:
    """The file's keys with a list of two metrics as ``metric`` and ``second_metric``, and likewise the direction."""
    split = dict(data)
    metrics = data.get("metric")
    if isinstance(metrics, list | tuple):
        names = [name for name in metrics if isinstance(name, str)]
        if len(names) != len(metrics) or len(names) not in (1, 2):
            mistakes.add(
                "metric", f"{shown(metrics)} is refused; expected the name of a metric, or a list of two names"
            )
            del split["metric"]
        else:
            split["metric"] = names[0]
            if names[1:]:
                split["second_metric"] = names[1]
    if split.get("second_metric") is not None and split["second_metric"] == split.get("metric"):
        mistakes.add("metric", f"{shown(split['metric'])} is given twice; expected two different metrics")
    directions = data.get("direction")
    if isinstance(directions, list | tuple):
        expected = 2 if split.get("second_metric") is not None else 1
        if len(directions) != expected:
            mistakes.add("direction", f"{shown(directions)} has {len(directions)} directions for {expected} metrics")
            del split["direction"]
        else:
            split["direction"] = directions[0]
            if directions[1:]:
                split["second_direction"] = directions[1]
    elif directions is not None and split.get("second_metric") is not None and data.get("second_direction") is None:
        mistakes.add("direction", f"{shown(directions)} is one direction for two metrics; expected a list of two")
    return split


def joined_objectives(content: Mapping[str, Any]) -> dict[str, Any]:
    """A stored file's keys as a person writes them: the inverse of :func:`split_objectives`."""
    joined = {key: value for key, value in content.items() if key not in ("second_metric", "second_direction")}
    if content.get("second_metric") is not None:
        joined["metric"] = [content["metric"], content["second_metric"]]
        joined["direction"] = [content["direction"], content["second_direction"]]
    return joined


def check_constraints(study_file: StudyFile, mistakes: Mistakes) -> None:
    """Adds constraints on metrics that the trainer does not yield."""
    entry = TRAINERS[study_file.trainer]
    for name in study_file.constraints or ():
        where = toml_path("constraints", name)
        if entry.suggests:
            mistakes.add(where, "an objective yields its value alone; raise hpo.Infeasible in it, or leave this out")
        elif entry.metrics is not None and name not in entry.metrics:
            mistakes.unknown(where, f"metric of the trainer {entry.name!r}:", name, entry.metrics)
        elif name.startswith("test_") and entry.metrics is not None:
            mistakes.add(where, "does not exist in a search, which never uses the test set; take a val_ metric")


def check_two_objectives(study_file: StudyFile, mistakes: Mistakes) -> None:
    """Adds what a file with two objectives must not have."""
    if len(study_file.objectives) < 2:
        return
    if study_file.pruner.name != "none":
        mistakes.add(
            "pruner",
            f"{study_file.pruner.name} judges a trial by one metric, and two are optimized: no trial is pruned; "
            "leave it out",
        )
    for key in ("target", "stop_at_target", "audit"):
        if getattr(study_file, key) not in (None, False):
            mistakes.add(key, "is for one metric, and two are optimized; leave it out")
    able = [name for name, entry in SAMPLERS.items() if entry.two_objectives]
    for index, sampler in enumerate(study_file.samplers):
        if not sampler.entry.two_objectives:
            what = f"{sampler.name} optimizes one metric, and there are two; expected one of {', '.join(able)}"
            mistakes.add(toml_path("samplers", index), what)
