"""Checks the whole table of a study file and finds all mistakes at once.

Keys first, each by itself; what is wrong is left out, so that the rest is checked against what is right. Whole
configurations are tried only where parameters and fixed values have no mistakes: they would repeat them.
"""

import datetime
import math
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pydantic

from hpo.corners import check_configurations
from hpo.errors import StudyFileError
from hpo.fields import MISSING, Fields
from hpo.mistakes import Mistakes, shown, toml_path
from hpo.search import PRUNERS, SAMPLERS, HyperbandOptions, PrunerSpec, SamplerSpec, pruner_spec
from hpo.space import Categorical, Float, GridTooLargeError, Parameter, Space
from hpo.space_table import read_space
from hpo.spec import Budget, StudyFile
from trainers.protocol import TRAINERS, Direction, TrainerEntry

LONGEST_NAME = 200
DEEPEST = 40  # tables within tables
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
        self.given = {key: _plain(value, (str(key),), self.mistakes) for key, value in data.items()}
        self.table = self._top_level()
        self.entry = self._trainer()
        self.fields = None if self.entry is None else Fields(self.entry.config)

    def read(self) -> StudyFile | None:
        table, mistakes = self.table, self.mistakes
        self._check_name()
        direction = self._direction()
        samplers = self._samplers()
        pruner = self._pruner()
        before = len(mistakes)
        parameters = read_space(table.space, self.fields, mistakes)
        fixed = self._fixed(table.space)
        space = Space(parameters, self._base(parameters, fixed))
        try_first = self._try_first(space)
        sound = len(mistakes) == before
        budget = self._budget(len(try_first))
        uses_grid = any(sampler.name == "grid" for sampler in samplers)
        if sound and uses_grid:
            self._check_grid(space)
        if sound and self.entry is not None:
            sound = len(mistakes) == before
            check_configurations(space, self.entry.config, fixed, try_first, uses_grid and sound, mistakes)
        if self.entry is None or direction is None or budget is None or len(mistakes) > before:
            # What follows needs all of it.
            return None
        study_file = StudyFile(
            name=getattr(table, "name", ""),
            trainer=self.entry.name,
            metric=getattr(table, "metric", ""),
            direction=direction,
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
            fixed=fixed,
            space=space,
            try_first=try_first,
            provenance=table.provenance,
        )
        self._check_epochs(study_file)
        self._check_numbers(study_file)
        return study_file

    # The keys by themselves.

    def _top_level(self) -> StudyTable:
        try:
            return StudyTable.model_validate(self.given)
        except pydantic.ValidationError as error:
            self.mistakes.add_errors(error, self.given, known=list(StudyTable.model_fields))
            wrong = {item["loc"][0] for item in error.errors(include_url=False)}
        return StudyTable.model_construct(**{key: value for key, value in self.given.items() if key not in wrong})

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
        if direction is None and not any(line.startswith("direction:") for line in self.mistakes.lines):
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

    def _pruner(self) -> PrunerSpec:
        checked = self._named(self.table.pruner, PRUNERS, "pruner", ("pruner",))
        if checked is None:
            return PrunerSpec()
        name, options, _ = checked
        before = len(self.mistakes)
        path, wrapped = ["pruner"], options.get("wrapped")
        while wrapped is not None:
            path.append("wrapped")
            inner = self._named(wrapped, PRUNERS, "pruner", tuple(path))
            wrapped = None if inner is None else inner[1].get("wrapped")
        return pruner_spec({"name": name, **options}) if len(self.mistakes) == before else PrunerSpec()

    def _named(
        self, raw: Any, table: Mapping[str, Any], kind: str, path: tuple[str | int, ...], more: tuple[str, ...] = ()
    ) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
        """Name, complete options and the keys ``more`` of a name or a table with a name; None after a mistake."""
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
        model = self.mistakes.validate(table[name].options, options, *path, known=known)
        return None if model is None else (name, model.model_dump(), rest)

    # Fixed values and what they are merged with.

    def _fixed(self, space: Mapping[str, Any]) -> dict[str, Any]:
        fixed = dict(self.table.fixed)
        if self.fields is None:
            return fixed
        for name, value in self.table.fixed.items():
            path = toml_path("fixed", name)
            if name not in self.fields:
                self.mistakes.unknown(path, "parameter of the trainer's configuration:", name, self.fields.names)
                del fixed[name]
            elif (wrong := self.fields.check(name, value)[1]) is not None:
                self.mistakes.add(path, wrong)
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
        for index, entry in enumerate(self.table.try_first):
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
                elif (wrong := self.fields.check(name, value)[1]) is not None:
                    self.mistakes.add(path, wrong)
                else:
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
            if self.table.space and not any(line.startswith("budget") for line in self.mistakes.lines):
                self.mistakes.add("budget", "missing; expected { trials = N } or { epochs = N }")
            return Budget(trials=1)
        table = self.mistakes.validate(BudgetTable, self.table.budget, "budget")
        if not isinstance(table, BudgetTable):
            return None
        if (table.trials is None) == (table.epochs is None):
            self.mistakes.add(
                "budget", f"{shown(self.table.budget)} is refused; expected trials or epochs, one of them"
            )
            return None
        if table.trials is not None and num_first > table.trials:
            what = f"{table.trials} is less than the {num_first} configurations of try_first; expected at least as many"
            self.mistakes.add("budget.trials", what)
        return Budget(table.trials, table.epochs)

    def _check_grid(self, space: Space) -> None:
        if space.parameters and not space.gridded:
            self.mistakes.add(
                "space", "grid search has nothing to vary; give grid = [values] or a number of points to a parameter"
            )
            return
        for name, parameter in space.parameters.items():
            if parameter.grid is None and name not in space.base:
                self.mistakes.add(
                    toml_path("space", name),
                    "grid search needs a value for it; give it grid values, or its value in [fixed]",
                )
        try:
            space.size()
        except GridTooLargeError as error:
            self.mistakes.add("space", f"{error}; expected fewer grid values")

    def _check_epochs(self, study_file: StudyFile) -> None:
        """Budgets against the number of epochs of a trial and the size of the grid."""
        budget, most = study_file.budget, study_file.max_epochs()
        if budget.epochs is not None and most is None:
            self.mistakes.add(
                "budget.epochs", "the trainer's configuration has no field epochs to count by; expected { trials = N }"
            )
        elif budget.epochs is not None and most is not None and budget.epochs < most:
            what = f"{budget.epochs} is less than one trial may take; expected at least {most}"
            self.mistakes.add("budget.epochs", what)
        if any(sampler.name == "grid" for sampler in study_file.samplers):
            cells = study_file.space.size() or 1
            if budget.trials is not None and cells > budget.trials:
                what = f"{budget.trials} is less than the grid's {cells} cells"
                self.mistakes.add("budget.trials", f"{what}; expected at least {cells}, or fewer grid values")
            elif budget.epochs is not None and most is not None and cells * most > budget.epochs:
                what = f"{budget.epochs} is less than the grid's {cells} cells of {most} epochs"
                self.mistakes.add("budget.epochs", f"{what}; expected at least {cells * most}, or fewer grid values")

    def _check_numbers(self, study_file: StudyFile) -> None:
        """What samplers and pruners need of the space."""
        for index, sampler in enumerate(study_file.samplers):
            numbers = [n for n, p in study_file.space.parameters.items() if not isinstance(p, Categorical)]
            free = [name for name in numbers if name in study_file.space.unconditional]
            if sampler.name == "cmaes" and not free:
                what = "cmaes moves numbers without conditions, and the space has none; expected another sampler"
                self.mistakes.add(toml_path("samplers", index), what)
        spec: Mapping[str, Any] | None = {"name": study_file.pruner.name, **study_file.pruner.options}
        path = "pruner"
        while spec is not None:
            if spec["name"] == "hyperband":
                options = HyperbandOptions.model_validate({k: v for k, v in spec.items() if k != "name"})
                most = options.max_epochs or study_file.max_epochs()
                if most is None:
                    what = (
                        "missing; the trainer's configuration has no field epochs, so give the most epochs of a trial"
                    )
                    self.mistakes.add(f"{path}.max_epochs", what)
                elif options.min_epochs > most:
                    what = f"{options.min_epochs} is more than the {most} epochs of a trial; expected at most {most}"
                    self.mistakes.add(f"{path}.min_epochs", what)
            spec, path = spec.get("wrapped"), f"{path}.wrapped"


def name_mistake(name: str) -> str | None:
    """Why an experiment or a sampler's studies cannot be called so, or None."""
    if not name.strip(" .") or len(name) > LONGEST_NAME:
        return f"{shown(name)} is refused; expected 1 to {LONGEST_NAME} characters, not only spaces and dots"
    if name != name.strip():
        return f"{shown(name)} is refused; expected no space at either end"
    wrong = next((c for c in name if c not in "-_. " and unicodedata.category(c)[0] not in "LMN"), None)
    if wrong is None:
        return None
    return f"{shown(wrong)} in {shown(name)} is refused; expected letters, digits, spaces and - _ ."


def _extent(parameter: Parameter) -> str:
    if isinstance(parameter, Categorical):
        return f"one of {shown(parameter.choices)}"
    steps = f" in steps of {parameter.step}" if parameter.step not in (None, 1) else ""
    kind = "a whole number" if isinstance(parameter.high, int) else "a number"
    return f"{kind} from {shown(parameter.low)} to {shown(parameter.high)}{steps}"


def _plain(value: Any, path: tuple[str | int, ...], mistakes: Mistakes) -> Any:
    """The value as JSON can hold it: dates become text. What cannot be held is a mistake, and None."""
    if len(path) > DEEPEST:
        mistakes.add(toml_path(path[0]), "is nested too deeply")
        return None
    if isinstance(value, Mapping):
        return {key: _plain(item, (*path, key), mistakes) for key, item in _keys(value, path, mistakes)}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index), mistakes) for index, item in enumerate(value)]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if abs(value) < 2**63:
            return value
        mistakes.add(toml_path(*path), f"{shown(value)} is too large; expected a number of at most 64 bits")
    elif isinstance(value, float):
        if math.isfinite(value):
            return value
        mistakes.add(toml_path(*path), f"{shown(value)} is refused; expected a finite number")
    else:
        mistakes.add(toml_path(*path), f"{type(value).__name__} is nothing that a study file can hold")
    return None


def _keys(value: Mapping[Any, Any], path: tuple[str | int, ...], mistakes: Mistakes) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(key, str):
            yield key, item
        else:
            mistakes.add(toml_path(*path), f"the key {shown(key)} is refused; expected text")
