"""Reads the whole table of a study file and finds all its mistakes at once.

Each key is read by itself; what is wrong is left out, so that the other keys are checked against what is right. Whole
configurations are tried only if parameters and fixed values have no mistakes: they would repeat them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pydantic

from hpo.errors import StudyFileError
from hpo.search.space import Space
from hpo.studyfile import hints
from hpo.studyfile.budget import Budget
from hpo.studyfile.check_configs import check_configurations
from hpo.studyfile.config_fields import config_fields
from hpo.studyfile.configuration import base_values
from hpo.studyfile.constraints import check_budget, check_pruner, check_samplers
from hpo.studyfile.json_values import json_compatible, name_mistake
from hpo.studyfile.model import StudyFile
from hpo.studyfile.objective import check_objective, with_defaults_of_objective
from hpo.studyfile.objectives import check_constraints, check_two_objectives, split_objectives
from hpo.studyfile.parse_forbidden import check_forbidden, read_forbidden
from hpo.studyfile.parse_search import read_pruner, read_samplers
from hpo.studyfile.parse_space import read_space
from hpo.studyfile.parse_values import read_fixed, read_try_first
from hpo.studyfile.program import read_program
from hpo.studyfile.provenance import Provenance, without_nulls
from hpo.studyfile.validation import Mistakes, near_or_all
from hpo.trainers.protocol import Direction
from hpo.trainers.registry import TRAINERS, TrainerEntry

MINIMIZED = ("loss", "error", "seconds", "num_parameters")
MAXIMIZED = ("acc", "score")


def read_study_file(data: dict[str, Any], source: str) -> StudyFile:
    """The study file of a table. Raises StudyFileError with all mistakes at once."""
    reader = _Reader(data)
    study_file = reader.read()
    if study_file is None or reader.mistakes.lines:
        raise StudyFileError(source, reader.mistakes.lines)
    return study_file


class _Reader:
    """Reads one table.

    Attributes:
        table: the given keys; sections that have been read stand in it as objects of the study file's model.
        wrong: keys that have mistakes of their own, which are not in the table any more.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        data = with_defaults_of_objective(data)
        self.mistakes = Mistakes()
        self.given = data
        data = split_objectives(data, self.mistakes)
        self.table: dict[str, Any] = {}
        self.wrong: set[str] = set()
        self._unsound: set[str] = set()  # parameters whose entries have mistakes
        for key, value in data.items():
            if key in StudyFile.own_keys():
                self.table[key] = value
            else:
                instead = hints.instead_of_key(str(key), value)
                near = f"; {instead}" if instead else near_or_all(str(key), StudyFile.own_keys())
                self.mistakes.add(str(key), f"unknown name{near}")
        self.entry = self._trainer()
        self.fields = config_fields(None if self.entry is None else self.entry.config)

    def read(self) -> StudyFile | None:
        """The study file, or None if there is too little to make one of."""
        if isinstance(name := self.table.get("name"), str) and (wrong := name_mistake(name)):
            self.mistakes.add("name", wrong)
        self._read_direction()
        if self.table.get("second_metric") is not None:
            self._read_direction("second_metric", "second_direction")
        if isinstance(self.table.get("samplers"), list):
            self._read("samplers", lambda: read_samplers(self.table["samplers"], self.mistakes))
        if "pruner" in self.table:
            self._read("pruner", lambda: read_pruner(self.table["pruner"], self.mistakes))
        sound = self._read_values()
        self._read_budget()
        self._read_program()
        if isinstance(given := self.table.get("provenance"), Mapping):
            plain = without_nulls(json_compatible(given, ("provenance",), self.mistakes, finite=True))
            self.mistakes.validate(Provenance, plain, "provenance")
            self.table["provenance"] = plain
        study_file = self._validated()
        if self.entry is None or not sound:
            return None
        # Configurations are checked even if other keys have mistakes.
        draft = StudyFile.model_construct(**{"name": "", **self.table})
        if self.entry.suggests:
            sound = check_objective(self.given, draft.samplers, self.mistakes)
        else:
            sound = check_samplers(draft.samplers, draft.space, self.mistakes)
        if not sound:
            drawing = [sampler for sampler in draft.samplers if sampler.entry.cells is None]
            draft = draft.model_copy(update={"samplers": drawing})
        check_configurations(draft, self.mistakes)
        if study_file is None or not sound:
            return None
        check_budget(study_file, self.mistakes)
        check_pruner(study_file, self.mistakes)
        check_two_objectives(study_file, self.mistakes)
        check_constraints(study_file, self.mistakes)
        return study_file

    def _read(self, key: str, read: Any) -> None:
        """Puts what ``read`` makes of a key into the table; after a mistake the key is left out."""
        before = len(self.mistakes)
        value = read()
        if len(self.mistakes) == before:
            self.table[key] = value
        else:
            self._leave_out(key)

    def _leave_out(self, key: str) -> None:
        self.table.pop(key, None)
        self.wrong.add(key)

    def _validated(self) -> StudyFile | None:
        """The model of the table; its errors become mistakes, before those of the sections."""
        try:
            return StudyFile.model_validate(self.table)
        except pydantic.ValidationError as error:
            errors = Mistakes()
            for item in error.errors(include_url=False):
                if item["loc"][0] not in self.wrong:
                    errors.add_error(item, self.table)
                    self.wrong.add(str(item["loc"][0]))
            self.mistakes.lines[:0] = errors.lines
            for key in self.wrong:
                self.table.pop(key, None)
            return None

    # The keys by themselves.

    def _trainer(self) -> TrainerEntry | None:
        name = self.table.get("trainer")
        if not isinstance(name, str):
            return None
        if name not in TRAINERS:
            hint = " (name the module of your own trainers with --trainers or HPO_TRAINERS)"
            self.mistakes.unknown("trainer", "trainer", name, TRAINERS, hint)
        return TRAINERS.get(name)

    def _read_direction(self, metric: str = "metric", direction: str = "direction") -> None:
        """Finds the direction of the metric in the key ``metric``, if the file does not give it."""
        if self.table.get(direction) is None:
            self.table.pop(direction, None)
            if (found := self._direction(metric, direction)) is None:
                self.wrong.add(direction)
            else:
                self.table[direction] = found
        elif isinstance(self.table.get(metric), str):
            self._direction(metric, direction)  # for the mistakes of the metric

    def _direction(self, key: str, of: str) -> Direction | None:
        """The direction of the trainer's metric, or what the metric's name says; None after a mistake."""
        metric = self.table.get(key)
        if not isinstance(metric, str):
            return None
        yields = None if self.entry is None else self.entry.metrics
        if self.entry is not None and yields is not None and metric not in yields:
            self.mistakes.unknown("metric", f"metric of the trainer {self.entry.name!r}:", metric, yields)
            return None
        if yields is not None and metric.startswith("test_") and metric.replace("test_", "val_", 1) in yields:
            val = metric.replace("test_", "val_", 1)
            self.mistakes.add(
                "metric", f"{metric} does not exist in a search, which never uses the test set; take {val}"
            )
        if yields is not None and (direction := yields[metric]) is not None:
            return direction
        lowered = metric.lower()
        if any(word in lowered for word in MINIMIZED):
            return "minimize"
        if any(word in lowered for word in MAXIMIZED):
            return "maximize"
        if of not in self.table:
            what = f"missing; it does not follow from the name {metric!r}, so give 'minimize' or 'maximize'"
            self.mistakes.add("direction", what)
        return None

    def _read_budget(self) -> None:
        if self.table.get("budget") is None:
            self.table.pop("budget", None)
            if self.given.get("space"):
                self.mistakes.add("budget", "missing; expected { trials = N }, { epochs = N } or { hours = N }")
                self.wrong.add("budget")
            else:
                self.table["budget"] = Budget(trials=1)
            return
        self._read("budget", lambda: self.mistakes.validate(Budget, self.table["budget"], "budget"))

    def _read_program(self) -> None:
        space, fixed, first = (self.table.get(key) for key in ("space", "fixed", "try_first"))
        searched = list(space.parameters) if isinstance(space, Space) else []
        others = list(fixed) if isinstance(fixed, Mapping) else []
        for values in first if isinstance(first, list) else ():
            others += list(values) if isinstance(values, Mapping) else []
        names = list(dict.fromkeys([*searched, *others, *sorted(self._unsound)]))
        trainer = None if self.entry is None else self.entry.name
        before = len(self.mistakes)
        keys = read_program(self.table, trainer, searched, names, self.mistakes)
        self.table.update(keys or {})
        for key in ("command", "metrics") if len(self.mistakes) > before else ():
            self._leave_out(key)

    # Parameters and values.

    def _read_values(self) -> bool:
        """Reads space, fixed and try_first, which must fit each other; returns whether they have no mistakes."""
        before = len(self.mistakes)
        table = self.table.get("space", {})
        parameters, unsound = (
            read_space(table, self.fields, self.mistakes) if isinstance(table, Mapping) else ({}, set())
        )
        self._unsound = unsound
        fixed = {}
        if isinstance(self.table.get("fixed", {}), Mapping):
            self._read("fixed", lambda: read_fixed(self.table.get("fixed", {}), self.fields, self.mistakes))
            fixed = self.table.get("fixed", {})
        space = Space(parameters, base_values(self.fields, parameters, fixed))
        forbidden = self.table.get("forbidden", [])
        combinations = read_forbidden(forbidden, space, unsound, self.mistakes) if isinstance(table, Mapping) else []
        self.table["forbidden"] = [combination.as_table() for combination in combinations]
        space = dataclasses.replace(space, forbidden=tuple(combinations))
        if isinstance(table, Mapping):
            if unsound:
                self._leave_out("space")
            else:
                self.table["space"] = space
        first = self.table.get("try_first", [])
        is_list = isinstance(first, list) and all(isinstance(entry, Mapping) for entry in first)
        if is_list:
            self._read("try_first", lambda: read_try_first(first, space, unsound, self.fields, self.mistakes))
        if len(self.mistakes) == before and is_list:
            check_forbidden(space, self.table.get("try_first", []), self.mistakes)
        return len(self.mistakes) == before and isinstance(self.table.get("space"), Space) and is_list
