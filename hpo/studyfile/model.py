"""The study file as an object: what is searched, with what, for how long; and the one way to read it.

An object exists only for a file without mistakes: see :mod:`hpo.studyfile.parse` for what is checked.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic

from hpo.database import attributes
from hpo.errors import ExperimentError
from hpo.search.context import SearchContext
from hpo.search.pruner_registry import PrunerSpec
from hpo.search.sampler_registry import SamplerSpec
from hpo.search.space import Categorical, Space
from hpo.studyfile.program import Program
from hpo.studyfile.provenance import without_nulls
from hpo.studyfile.validation import shown
from hpo.trainers.protocol import Direction
from hpo.trainers.registry import TRAINERS

CHANGES_NO_TRIAL = ("target", "slots", "epoch_timeout_seconds", "max_retries", "keep_folders", "stop_grace_seconds")
"""Keys that an experiment may change without becoming another one."""


@dataclass(frozen=True)
class Budget:
    """What a study may spend: a number of trials, or of epochs."""

    trials: int | None = None
    epochs: int | None = None

    def times(self, factor: int) -> "Budget":
        return Budget(self.trials and self.trials * factor, self.epochs and self.epochs * factor)

    def as_dict(self) -> dict[str, int]:
        return _without_none({"trials": self.trials, "epochs": self.epochs})


@dataclass(frozen=True)
class StudyFile:
    """A study file without mistakes.

    Attributes:
        value: which epoch's metric is a trial's value, the last or the best.
        repeats: number of independent searches with each sampler.
        target: value of the metric to be reached; it stops nothing, comparisons show it.
        audit: whether some pruned trials run to their end, to see what pruning costs.
        slots: number of trials that a worker trains at once; None lets the trainer choose.
        keep_folders: which trials' folders stay after they have ended.
        seed_libraries: whether random, NumPy and torch are seeded from a trial's seed before its code starts.
        work_in: the current folder of a trial: where the experiment was launched, or the trial's own folder.
        program: the keys of ``trainer = "program"``, else None.
        fixed: configuration values that are not searched, and what grid search uses for parameters without grid.
        try_first: configurations (or parts of them) of the first trials of each search but grid search.
        provenance: what an export says of where the configuration comes from.
    """

    name: str
    trainer: str
    metric: str
    direction: Direction
    samplers: list[SamplerSpec]
    budget: Budget
    value: Literal["last", "best"] = "last"
    repeats: int = 1
    pruner: PrunerSpec = field(default_factory=PrunerSpec)
    seed: int = 0
    target: float | None = None
    audit: bool = False
    slots: int | None = None
    epoch_timeout_seconds: float | None = None
    max_retries: int = 3
    keep_folders: Literal["best", "all", "none"] = "best"
    seed_libraries: bool = True
    work_in: Literal["launch", "trial"] = "launch"
    program: Program | None = None
    fixed: dict[str, Any] = field(default_factory=dict)
    space: Space = field(default_factory=lambda: Space({}))
    try_first: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The file with every default written out, as JSON can hold it: what the database keeps."""
        return _without_none(
            {
                "name": self.name,
                "trainer": self.trainer,
                "metric": self.metric,
                "direction": self.direction,
                "value": self.value,
                "samplers": [sampler.as_table() for sampler in self.samplers],
                "repeats": self.repeats,
                "budget": self.budget.as_dict(),
                "pruner": self.pruner.as_table(),
                "seed": self.seed,
                "target": self.target,
                "audit": self.audit,
                "slots": self.slots,
                "epoch_timeout_seconds": self.epoch_timeout_seconds,
                "max_retries": self.max_retries,
                "keep_folders": self.keep_folders,
                "seed_libraries": self.seed_libraries,
                "work_in": self.work_in,
                **(self.program.as_table() if self.program is not None else {}),
                "fixed": self.fixed,
                "space": self.space.as_table(),
                "try_first": self.try_first,
                "provenance": self.provenance,
            }
        )

    def differences(self, other: "StudyFile") -> list[str]:
        """What this file says otherwise than ``other``, as ``path: other -> this``; provenance does not count."""
        lines = []
        theirs, ours = (dict(_flat(file._comparable())) for file in (other, self))
        for path in dict.fromkeys([*theirs, *ours]):
            if theirs.get(path) != ours.get(path):
                lines.append(f"{path}: {theirs.get(path, 'not given')} -> {ours.get(path, 'not given')}")
        before, after = list(other.space.parameters), list(self.space.parameters)
        if before != after and sorted(before) == sorted(after):
            lines.append(f"order of [space]: {', '.join(before)} -> {', '.join(after)}")
        return lines

    def _comparable(self) -> dict[str, Any]:
        data = self.to_json()
        del data["provenance"]
        samplers = {entry["label"]: entry for entry in data["samplers"]}
        return {**data, "samplers": samplers}

    def is_extension_of(self, old: "StudyFile") -> bool:
        """Whether trials of ``old`` are trials of this file: it only adds budget, repeats or samplers to it."""
        grown = (
            _at_least(self.budget.trials, old.budget.trials)
            and _at_least(self.budget.epochs, old.budget.epochs)
            and self.repeats >= old.repeats
            and all(sampler in self.samplers for sampler in old.samplers)
        )
        may_differ = {"budget", "repeats", "samplers", *CHANGES_NO_TRIAL}
        same = all(
            self._comparable().get(key) == old._comparable().get(key)
            for key in {*self._comparable(), *old._comparable()} - may_differ
        )
        return grown and same and list(self.space.parameters) == list(old.space.parameters)

    def study_names(self) -> list[tuple[str, SamplerSpec, int]]:
        """``<experiment>/<label>/<repeat>``, sampler and repeat of each study, repeat by repeat."""
        return [
            (f"{self.name}/{sampler.label}/{repeat}", sampler, repeat)
            for repeat in range(self.repeats)
            for sampler in self.samplers
        ]

    def max_epochs(self) -> int | None:
        """The most epochs that a configuration can have; None if the trainer does not say, or it is no whole number."""
        entry = TRAINERS[self.trainer]
        if isinstance(entry.max_epochs, int):
            return entry.max_epochs
        name = entry.epochs_field
        if name is None:
            return None
        parameter = self.space.parameters.get(name)
        values: list[Any] = [given[name] for given in self.try_first if name in given]
        if isinstance(parameter, Categorical):
            values += parameter.choices
        elif parameter is not None:
            values.append(parameter.high)
        # What is not searched, not active, or not in the grid has its fixed value or default.
        has_cells = any(sampler.entry.cells is not None for sampler in self.samplers)
        if parameter is None or parameter.when or (has_cells and parameter.grid is None):
            from hpo.studyfile.config_fields import Fields

            if name in self.fixed:
                values.append(self.fixed[name])
            elif entry.config is not None and name in (fields := Fields(entry.config)):
                values.append(fields.default(name))
        whole = [int(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        return max((value for value in whole if value >= 1), default=None)

    def search_context(self) -> SearchContext:
        """What samplers and pruners need of this file."""
        return SearchContext(self.space, self.seed, self.name, len(self.try_first), self.max_epochs())

    def budget_for(self, sampler: SamplerSpec) -> Budget:
        """The budget of one study: the number of cells for a sampler that has cells, else the file's times a factor."""
        if (cells := sampler.cells(self.space)) is not None:
            return Budget(trials=len(cells))
        return self.budget.times(sampler.entry.budget_factor)

    def merge(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """The given values of a trial: fixed and sampled ones; a sampled one goes before a fixed one."""
        return {**self.fixed, **sampled}

    def given_of(self, attrs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The given values in a trial's user attributes; None if the trial has no configuration yet.

        A trial of an older version holds the dump of its validated configuration instead, which is given again.
        """
        if (given := attrs.get(attributes.GIVEN)) is not None:
            return dict(given)
        dump = attrs.get(attributes.CONFIG)
        return None if dump is None else self.merge(dump)

    def program_options(self) -> dict[str, Any]:
        """What the trainer ``program`` is built with; empty for every other trainer."""
        return {} if self.program is None else {**self.program.as_table(), "objective": self.metric}

    def configure(self, given: Mapping[str, Any]) -> Any:
        """The trainer's configuration of given values.

        Raises:
            ExperimentError: if the trainer's configuration refuses the combination.
        """
        return configure(self, given)

    def as_fixed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The table ``[fixed]`` of a study file that trains with these given values."""
        dumped = self.configure(given)
        if isinstance(dumped, dict):
            return without_nulls(dumped)
        full = {name: value for name, value in dumped.model_dump(mode="json").items() if name not in given}
        try:
            same = self.configure({**full, **given}) == dumped
        except ExperimentError:
            same = False
        return without_nulls({**full, **given} if same else dict(given))

    def example_configs(self) -> list[pydantic.BaseModel]:
        """A few configurations in which each choice of the space occurs, the first with all numbers at their highest.

        For a trainer's probe of memory and speed, and for the check of the data sets.
        """
        from hpo.studyfile.sample_configs import covering

        def build(values: Mapping[str, Any]) -> Any:
            try:
                return configure(self, values)
            except ExperimentError:
                return None

        return covering(self.space, build)


def configure(study_file: StudyFile, sampled: Mapping[str, Any]) -> Any:
    """The configuration of fixed and sampled values; a sampled one goes before a fixed one. A dict without a model.

    Raises:
        ExperimentError: where the trainer's configuration refuses the combination.
    """
    config = TRAINERS[study_file.trainer].config
    values = {**study_file.fixed, **sampled}
    if config is None:
        return values
    try:
        return config.model_validate(values)
    except pydantic.ValidationError as error:
        from hpo.studyfile.validation import Mistakes

        mistakes = Mistakes()
        mistakes.add_errors(error, values, known=list(config.model_fields))
        given = ", ".join(f"{name} = {shown(value)}" for name, value in sampled.items()) or "the fixed values"
        raise ExperimentError(
            f"the trainer {study_file.trainer!r} refuses a configuration of {study_file.name!r} ({given}): "
            + "; ".join(mistakes.lines)
        ) from None


def _at_least(new: int | None, old: int | None) -> bool:
    return new is None if old is None else new is not None and new >= old


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested tables by their paths, as text."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{path}[{index}]")
    else:
        yield path, json.dumps(value, ensure_ascii=False)
