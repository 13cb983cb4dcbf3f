"""Checks a study file's configurations as a whole, with a few of them that stand for all.

They find what single fields do not show: a missing field, a combination that the configuration refuses, a configuration
that is not the same when it is validated a second time. A refused combination is a mistake of the file only if nothing
in the space fits: searches draw again in its place.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from hpo.studyfile.configuration import first_difference
from hpo.studyfile.model import StudyFile
from hpo.studyfile.sample_configs import complete, first_fitting_draw, representatives, values_that_activate
from hpo.studyfile.validation import Mistakes, explain, listed, location, toml_path
from hpo.trainers.errors import Infeasible

COMPLETIONS = 50
"""Random completions of a ``try_first`` entry that are tried before it counts as refused."""


@dataclass(frozen=True)
class Problem:
    """What the configuration says against a complete set of values.

    Attributes:
        name: dotted name of the field; empty for the configuration as a whole.
        refusal: whether only the combination is refused, so that other values may fit.
    """

    name: str
    text: str
    refusal: bool
    missing: bool = False


def problems(study_file: StudyFile, values: Mapping[str, Any]) -> list[Problem]:
    """What the trainer's configuration says against values; [] if it accepts them."""
    given = study_file.merge(values)
    try:
        study_file.fields.build(given)
    except pydantic.ValidationError as error:
        refusals = []
        for item in error.errors(include_url=False):
            name = ".".join(map(str, location(item, given)))
            known = study_file.fields.level_of(name)[1]
            kind = item["type"]
            text = explain(item, known)
            if not name and item["loc"] and kind not in ("missing", "extra_forbidden"):
                text = f"the default of {'.'.join(map(str, item['loc']))}: {text}"
                if kind == "finite_number":
                    text += "; a field that may be infinite is declared with Field(allow_inf_nan=True)"
            if kind == "missing" and name in study_file.space.parameters:
                text = "missing; it has no default for where it is not sampled, so fix it too"
            elif kind == "missing":
                text = "missing; it has no default, so fix or search it"
            refusals.append(Problem(name, text, kind in ("value_error", "assertion_error"), kind == "missing"))
        return refusals
    except Infeasible as error:
        return [Problem("", error.reason, refusal=True)]
    except Exception as error:  # a validator of the user's own
        what = f"the configuration's validator raised {type(error).__name__}: {error}"
        return [Problem("", what, refusal=True)]
    return []


def check_configurations(study_file: StudyFile, mistakes: Mistakes) -> None:
    """Adds what is wrong with the file's configurations.

    ``study_file`` may be a draft: it needs its trainer, samplers, fixed values, space and configurations to try first.
    """
    space = study_file.space
    for name in space.parameters:
        if values_that_activate(space, name) is None:
            what = "the conditions of it and its parents exclude each other"
            mistakes.add(toml_path("space", name, "when"), what)
    lines: dict[tuple[str, str], str] = {}  # (place, text) -> text with the values; each text once
    refused: dict[tuple[str, str], str] = {}
    accepted: list[dict[str, Any]] = []
    for name, chosen, values in representatives(space):
        if not space.allows(values):
            continue
        against = problems(study_file, values)
        if not against:
            accepted.append(values)
        path = toml_path("space", name) if name else "fixed"
        for problem in against:
            where = _place(study_file, problem, values) or path
            text = problem.text if where != path or not chosen else f"with {listed(chosen)}: {problem.text}"
            (refused if problem.refusal else lines).setdefault(
                ("" if where == path else where, problem.text), f"{where}\0{text}"
            )
    draws = any(sampler.entry.cells is None for sampler in study_file.samplers)
    if refused and not lines and not accepted and draws and first_fitting_draw(space, study_file.accepts) is None:
        lines = refused
    for line in lines.values():
        mistakes.add(*line.split("\0", 1))
    for index, entry in enumerate(study_file.try_first):
        _check_first(study_file, index, entry, mistakes)
    if not lines:
        _check_cells(study_file, mistakes)
        for values in accepted:
            if not _comes_back(study_file, values, mistakes):
                break


def _place(study_file: StudyFile, problem: Problem, values: Mapping[str, Any]) -> str | None:
    """The TOML path of a problem that lies elsewhere than in the value that is tried."""
    if problem.missing:
        return toml_path("fixed", *problem.name.split("."))
    if problem.name and not any(_covers(name, problem.name) for name in values):
        return toml_path("fixed", *problem.name.split("."))
    return None


def _covers(name: str, other: str) -> bool:
    return other == name or other.startswith(name + ".")


def _check_first(study_file: StudyFile, index: int, entry: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Adds what is wrong with an entry of ``try_first`` whatever the other parameters are."""
    against = problems(study_file, complete(study_file.space, entry))
    rng = random.Random(0)
    if any(problem.refusal for problem in against):
        completions = (complete(study_file.space, entry, rng) for _ in range(COMPLETIONS))
        if any(study_file.accepts(values) for values in completions):
            return
    for problem in against:
        if not problem.missing:  # reported for the file as a whole
            mistakes.add(toml_path("try_first", index), problem.text)


def _check_cells(study_file: StudyFile, mistakes: Mistakes) -> None:
    for sampler in study_file.samplers:
        if study_file.feasible_cells(sampler) == [] and (cells := sampler.cells(study_file.space)):
            reason = study_file.refusal(cells[0])
            mistakes.add(
                "space",
                f"the trainer's configuration refuses each of the grid's {len(cells)} cells; "
                f"the first one, {listed(cells[0])}: {reason}",
            )


def _comes_back(study_file: StudyFile, values: Mapping[str, Any], mistakes: Mistakes) -> bool:
    """Whether a configuration is the same when its stored values are validated again, as a retry and a file do."""
    given = study_file.merge(values)
    stored = json.loads(json.dumps(given))
    first = study_file.fields.build(given)
    for again in (study_file.fields.build(stored), study_file.fields.build(stored)):
        if (where := first_difference(first, again)) is not None:
            mistakes.add(
                "trainer",
                f"the configuration does not come back equal when the same values are validated again: {where} "
                "differs (a default or validator that depends on time, chance or earlier calls?); an interrupted trial "
                "would go on with another configuration, so compute this in the trainer, or from run.seed",
            )
            return False
    return True
