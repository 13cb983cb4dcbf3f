"""Checks the whole table of a study file and finds all mistakes at once.

Keys first, each by itself; what is wrong is left out, so that the rest is checked against what is right. Whole
configurations are tried only where parameters and fixed values have no mistakes: they would repeat them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from hpo.errors import StudyFileError
from hpo.search.context import Options
from hpo.search.pruner_registry import PRUNERS, PrunerSpec
from hpo.search.sampler_registry import SAMPLERS, SamplerSpec
from hpo.search.space import Categorical, Float, Parameter, Space
from hpo.studyfile.config_fields import MISSING, Fields
from hpo.studyfile.constraints import check_budget, check_pruner, check_samplers
from hpo.studyfile.json_values import name_mistake, plain
from hpo.studyfile.model import Budget, StudyFile
from hpo.studyfile.objective import check_objective, with_defaults_of_objective
from hpo.studyfile.parse_space import read_space
from hpo.studyfile.program import read_program
from hpo.studyfile.provenance import Provenance, without_nulls
from hpo.studyfile.sample_configs import check_configurations
from hpo.studyfile.validation import Mistakes, shown, toml_path
from hpo.trainers.protocol import Direction
from hpo.trainers.registry import TRAINERS, TrainerEntry

DEEPEST_WRAPPED = 3  # pruners within pruners
MINIMIZED = ("loss", "error")
MAXIMIZED = ("acc", "score")


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StudyTable(_Table):
    """The keys of a study file; what is in the tables is checked later."""

    name: str
    trainer: str
    metric: str
    direction: Literal["minimize", "maximize"] | None = None
    value: Literal["last", "best"] = "last"
    samplers: list[Any] = ["tpe"]
    repeats: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 1
    budget: dict[str, Any] | None = None
    pruner: Any = "none"
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0
    target: float | None = None
    audit: bool = False
    slots: Annotated[int, pydantic.Field(ge=1, le=100_000)] | None = None
    epoch_timeout_seconds: Annotated[float, pydantic.Field(gt=0)] | None = None
    max_retries: Annotated[int, pydantic.Field(ge=0, le=1_000)] = 3
    keep_folders: Literal["best", "all", "none"] = "best"
    seed_libraries: bool = True
    work_in: Literal["launch", "trial"] = "launch"
    command: Any = None
    args: Literal["flags", "hydra", "none"] | None = None
    metrics: dict[str, Any] = {}
    stop_grace_seconds: Annotated[float, pydantic.Field(ge=0, le=3600)] = 10.0
    fixed: dict[str, Any] = {}
    space: dict[str, Any] = {}
    try_first: list[dict[str, Any]] = []
    provenance: dict[str, Any] = {}


class BudgetTable(_Table):
    """``{ trials = N }`` or ``{ epochs = N }``."""

    trials: Annotated[int, pydantic.Field(ge=1, le=10**9)] | None = None
    epochs: Annotated[int, pydantic.Field(ge=1, le=10**9)] | None = None


def read_study_file(data: dict[str, Any], source: str) -> StudyFile:
    """The study file of a table. Raises StudyFileError with all mistakes at once."""
    reader = _Reader(data)
    study_file = reader.read()
    if study_file is None or reader.mistakes.lines:
        raise StudyFileError(source, reader.mistakes.lines)
    return study_file


class _Reader:
    """Reads one table; ``mistakes`` gathers what is wrong with it, and nothing raises."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.mistakes = Mistakes()
        self.given = with_defaults_of_objective(data)
        self.wrong: set[Any] = set()
        self.table = self._top_level()
        self.entry = self._trainer()
        self.fields = None if self.entry is None or self.entry.config is None else Fields(self.entry.config)

    def read(self) -> StudyFile | None:
        """The study file, or None where there is too little to make one of."""
        table, mistakes = self.table, self.mistakes
        self._check_name()
        direction = self._direction()
        samplers = self._samplers()
        pruner = self._pruner(table.pruner)
        before = len(mistakes)
        parameters = read_space(table.space, self.fields, mistakes)
        fixed = self._fixed()
        space = Space(parameters, self._base(parameters, fixed))
        try_first = self._try_first(space)
        sound = len(mistakes) == before and not self.wrong & {"space", "fixed", "try_first"}
        budget = self._budget(len(try_first))
        names = dict.fromkeys([*table.space, *fixed, *(name for values in try_first for name in values)])
        trainer = None if self.entry is None else self.entry.name
        given = {key: value for key, value in self.given.items() if key not in self.wrong}
        program = read_program(given, trainer, parameters, names, mistakes)
        provenance = without_nulls(plain(table.provenance, ("provenance",), mistakes))
        mistakes.validate(Provenance, provenance, "provenance")
        if self.entry is None or not sound:
            return None
        if self.entry.suggests:
            sound = check_objective(self.given, samplers, mistakes)
        else:
            sound = check_samplers(samplers, space, mistakes)
        listed = {sampler.name: sampler.cells(space) or [] for sampler in samplers} if sound else {}
        cells = [cell for group in listed.values() for cell in group]
        if self.entry.config is not None:
            check_configurations(space, self.entry.config, fixed, try_first, cells, mistakes)
        if budget is None or not sound:
            return None
        study_file = StudyFile(
            name=getattr(table, "name", ""),
            trainer=self.entry.name,
            metric=getattr(table, "metric", ""),
            direction=direction or "minimize",
            samplers=samplers,
            budget=budget,
            value=table.value,
            repeats=table.repeats,
            pruner=pruner,
            seed=table.seed,
            target=table.target,
            audit=table.audit,
            slots=table.slots,
            epoch_timeout_seconds=table.epoch_timeout_seconds,
            max_retries=table.max_retries,
            keep_folders=table.keep_folders,
            seed_libraries=table.seed_libraries,
            work_in=table.work_in,
            program=program,
            fixed=fixed,
            space=space,
            try_first=try_first,
            provenance=provenance,
        )
        check_budget(study_file, mistakes)
        check_pruner(study_file, mistakes)
        return study_file

    # The keys by themselves.

    def _top_level(self) -> StudyTable:
        try:
            return StudyTable.model_validate(self.given)
        except pydantic.ValidationError as error:
            self.mistakes.add_errors(error, self.given, known=list(StudyTable.model_fields))
            self.wrong = {item["loc"][0] for item in error.errors(include_url=False)}
        right = StudyTable.model_fields.keys() - self.wrong
        kept = {key: value for key, value in self.given.items() if key in right}
        return StudyTable.model_construct(**kept)

    def _check_name(self) -> None:
        if (name := getattr(self.table, "name", None)) is not None and (wrong := name_mistake(name)):
            self.mistakes.add("name", wrong)

    def _trainer(self) -> TrainerEntry | None:
        name = getattr(self.table, "trainer", None)
        if name is not None and name not in TRAINERS:
            hint = " (name the module of your own trainers with --trainers or HPO_TRAINERS)"
            self.mistakes.unknown("trainer", "trainer", name, TRAINERS, hint)
        return None if name is None else TRAINERS.get(name)

    def _direction(self) -> Direction | None:
        """The given direction, else the trainer's, else what the metric's name says."""
        metric: str | None = getattr(self.table, "metric", None)
        if metric is None:
            return self.table.direction
        yields = None if self.entry is None else self.entry.metrics
        if yields is not None and metric not in yields:
            assert self.entry is not None
            self.mistakes.unknown("metric", f"metric of the trainer {self.entry.name!r}:", metric, yields)
            return self.table.direction
        if yields is not None and metric.startswith("test_") and metric.replace("test_", "val_", 1) in yields:
            val = metric.replace("test_", "val_", 1)
            self.mistakes.add("metric", f"{metric} is not known in a search, which never sees the test set; take {val}")
        direction = self.table.direction or (None if yields is None else yields[metric])
        lowered = metric.lower()
        if direction is None and any(word in lowered for word in MINIMIZED):
            return "minimize"
        if direction is None and any(word in lowered for word in MAXIMIZED):
            return "maximize"
        if direction is None and "direction" not in self.wrong:
            self.mistakes.add(
                "direction", f"missing; the name {metric!r} does not tell it, so give 'minimize' or 'maximize'"
            )
        return direction

    def _samplers(self) -> list[SamplerSpec]:
        found: list[SamplerSpec] = []
        labels: set[str] = set()
        if not self.table.samplers:
            self.mistakes.add("samplers", f"is empty; expected at least one of {', '.join(SAMPLERS)}")
        for index, raw in enumerate(self.table.samplers):
            path = toml_path("samplers", index)
            checked = self._named(raw, SAMPLERS, "sampler", ("samplers", index), ("label",))
            if checked is None:
                continue
            name, options, rest = checked
            label = rest.get("label", name)
            if not isinstance(label, str) or name_mistake(label):
                wrong = name_mistake(label) if isinstance(label, str) else f"{shown(label)} is no text"
                self.mistakes.add(f"{path}.label", wrong or "")
            elif label in labels:
                hint = f"; give one of them another label: {{ name = {name!r}, label = … }}"
                self.mistakes.add(path, f"the sampler {label!r} is there twice{hint}")
            else:
                labels.add(label)
                found.append(SamplerSpec(name, label, options))
        return found

    def _pruner(self, raw: Any, path: tuple[str, ...] = ("pruner",)) -> PrunerSpec:
        """The pruner and those that it wraps, each validated once; after a mistake, a pruner that never prunes."""
        if len(path) > DEEPEST_WRAPPED:
            self.mistakes.add(toml_path(*path), f"expected at most {DEEPEST_WRAPPED} pruners within each other")
            return PrunerSpec()
        if (checked := self._named(raw, PRUNERS, "pruner", path)) is None:
            return PrunerSpec()
        name, options, _ = checked
        if (wrapped := getattr(options, "wrapped", None)) is not None:
            inner = self._pruner(wrapped, (*path, "wrapped"))
            options = options.model_copy(update={"wrapped": inner if inner.prunes else None})
        return PrunerSpec(name, options)

    def _named(
        self, raw: Any, table: Mapping[str, Any], kind: str, path: tuple[str | int, ...], more: tuple[str, ...] = ()
    ) -> tuple[str, Options, dict[str, Any]] | None:
        """Name, validated options and the keys ``more`` of a name or a table with a name; None after a mistake."""
        given = {"name": raw} if isinstance(raw, str) else raw
        where = toml_path(*path)
        if not isinstance(given, Mapping):
            self.mistakes.add(where, f"{shown(raw)} is no {kind}; expected a name, or a table with name and options")
            return None
        if "name" not in given:
            self.mistakes.add(f"{where}.name", f"missing; expected one of {', '.join(table)}")
            return None
        name = given["name"]
        if not isinstance(name, str) or name not in table:
            self.mistakes.unknown(where if isinstance(raw, str) else f"{where}.name", kind, name, table)
            return None
        rest = {key: given[key] for key in more if key in given}
        options = {key: value for key, value in given.items() if key != "name" and key not in more}
        known = [*table[name].options.model_fields, *more]
        model: Options | None = self.mistakes.validate(table[name].options, options, *path, known=known)
        return None if model is None else (name, model, rest)

    # Fixed values and what they are merged with.

    def _fixed(self) -> dict[str, Any]:
        fixed: dict[str, Any] = plain(self.table.fixed, ("fixed",), self.mistakes)
        if self.fields is None:
            return fixed
        for name, value in list(fixed.items()):
            path = toml_path("fixed", name)
            if name not in self.fields:
                self.mistakes.unknown(path, "parameter of the trainer's configuration:", name, self.fields.names)
                del fixed[name]
            elif not self.fields.report(name, value, self.mistakes, "fixed", name):
                del fixed[name]
        return fixed

    def _base(self, parameters: Mapping[str, Parameter], fixed: Mapping[str, Any]) -> dict[str, Any]:
        base = {}
        for name in parameters:
            value = fixed[name] if name in fixed else self.fields.default(name) if self.fields else MISSING
            if value is not MISSING:
                base[name] = value
        return base

    def _try_first(self, space: Space) -> list[dict[str, Any]]:
        found = []
        for index, entry in enumerate(plain(self.table.try_first, ("try_first",), self.mistakes)):
            values: dict[str, Any] = {}
            for name, value in entry.items():
                path = toml_path("try_first", index, name)
                if name in space.parameters:
                    parameter = space.parameters[name]
                    if not parameter.contains(value):
                        self.mistakes.add(path, f"{shown(value)} is outside the space; expected {_extent(parameter)}")
                    else:
                        values[name] = float(value) if isinstance(parameter, Float) else value
                elif name in self.table.space:
                    continue  # a parameter with mistakes of its own
                elif self.fields is None:
                    values[name] = value
                elif name not in self.fields:
                    known = dict.fromkeys([*space.parameters, *self.fields.names])
                    self.mistakes.unknown(path, "parameter", name, known)
                elif self.fields.report(name, value, self.mistakes, "try_first", index, name):
                    values[name] = value
            for name in values:
                for parent, allowed in space.conditions.get(name, ()):
                    if parent in values and values[parent] not in allowed:
                        self.mistakes.add(
                            toml_path("try_first", index, name),
                            f"is not active with {parent} = {shown(values[parent])}; "
                            f"leave it out, or give {parent} one of {shown(allowed)}",
                        )
            found.append(values)
        return found

    # What must fit together.

    def _budget(self, num_first: int) -> Budget | None:
        if self.table.budget is None:
            if self.table.space and "budget" not in self.wrong:
                self.mistakes.add("budget", "missing; expected { trials = N } or { epochs = N }")
            return Budget(trials=1)
        table = self.mistakes.validate(BudgetTable, self.table.budget, "budget")
        if not isinstance(table, BudgetTable):
            return None
        if (table.trials is None) == (table.epochs is None):
            self.mistakes.add("budget", f"{shown(self.table.budget)} is refused; expected either trials or epochs")
            return None
        if table.trials is not None and num_first > table.trials:
            what = f"{table.trials} is less than the {num_first} configurations of try_first; expected at least as many"
            self.mistakes.add("budget.trials", what)
        return Budget(table.trials, table.epochs)


def _extent(parameter: Parameter) -> str:
    if isinstance(parameter, Categorical):
        return f"one of {shown(parameter.choices)}"
    steps = f" in steps of {parameter.step}" if parameter.step not in (None, 1) else ""
    kind = "a whole number" if isinstance(parameter.high, int) else "a number"
    return f"{kind} from {shown(parameter.low)} to {shown(parameter.high)}{steps}"
