"""The study file as an object: its keys, each declared once, and what follows from them for an experiment.

:class:`StudyFile` is what the database keeps. Reading a file that a person wrote, with all its mistakes at once, stands
above it in :mod:`hpo.studyfile.parse`. To add a key, add a field to :class:`StudyFile`.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from hpo.database import attributes
from hpo.errors import ConfigurationRefusedError
from hpo.search.bounds import Bound
from hpo.search.context import SearchContext
from hpo.search.objectives import Objective, objectives_of
from hpo.search.pruner_registry import PrunerSpec
from hpo.search.sampler_registry import SAMPLERS, Cells, SamplerSpec
from hpo.search.space import Categorical, Space
from hpo.studyfile import configuration
from hpo.studyfile.budget import Budget
from hpo.studyfile.config_fields import ConfigFields, OpenFields
from hpo.studyfile.config_tree import MISSING, can_refuse
from hpo.studyfile.differences import differences, keys_that_differ
from hpo.studyfile.sample_configs import example_values
from hpo.studyfile.stored import Pruner, Sampler, SearchSpace, fields_of_trainer
from hpo.studyfile.validation import Mistakes, listed
from hpo.trainers.errors import Infeasible
from hpo.trainers.program_command import ArgumentStyle
from hpo.trainers.protocol import Direction
from hpo.trainers.registry import TRAINERS

CHANGES_NO_TRIAL = object()
"""Marks keys that may change when an existing experiment is relaunched."""

KEPT_BY_LAUNCH = object()
"""Marks what a launch adds to the record: no key that a person writes."""


class StudyFile(pydantic.BaseModel):
    """A study file without mistakes. The docstring of a key is its line in the reference."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )

    name: str
    """Name of the experiment; its studies are called ``<name>/<sampler's label>/<repeat>``."""
    trainer: str
    """Name of the trainer."""
    metric: str
    """The metric that is optimized, or a list of two: then the Pareto front of both is searched, without pruning."""
    direction: Direction
    """``"minimize"`` or ``"maximize"``, a list of two for two metrics; by default what the trainer says, or what the
    metric's name says."""
    second_metric: str | None = None
    """The second of two metrics, in a stored study file; ``metric = [first, second]`` gives it."""
    second_direction: Direction | None = None
    """Its direction, in a stored study file; ``direction = [first, second]`` gives it."""
    value: Literal["last", "best"] = "last"
    """Which epoch's metric is a trial's value: that of the last epoch or the best one."""
    samplers: Annotated[list[Sampler], pydantic.Field(min_length=1)] = pydantic.Field(
        default_factory=lambda: [SamplerSpec("auto", "auto", SAMPLERS["auto"].options())]
    )
    """Names of samplers, or tables with a name, options and a label; each searches by itself. ``["auto"]`` if the file
    does not say."""
    repeats: Annotated[int, pydantic.Field(ge=1, le=10_000)] = 1
    """Number of independent searches with each sampler."""
    budget: Budget
    """What each search may spend: ``trials`` or ``epochs``, ``hours``, ``seconds`` or ``gpu_hours``, or one of each;
    ``{ trials = 1 }`` if nothing is searched."""
    pruner: Pruner = pydantic.Field(default_factory=PrunerSpec)
    """Name of a pruner, or a table with a name and options."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0
    """All draws and all trainings derive their seeds from it."""
    target: Annotated[float | None, CHANGES_NO_TRIAL] = None
    """Value of the metric to be reached; comparisons show when it was reached."""
    stop_at_target: Annotated[bool, CHANGES_NO_TRIAL] = False
    """Whether a search begins no further trial once a complete one has reached the target."""
    audit: bool = False
    """Whether some pruned trials run to their end, to see what pruning costs."""
    slots: Annotated[Annotated[int, pydantic.Field(ge=1, le=100_000)] | None, CHANGES_NO_TRIAL] = None
    """Number of trials that a worker trains at once; by default the trainer chooses."""
    epoch_timeout_seconds: Annotated[Annotated[float, pydantic.Field(gt=0)] | None, CHANGES_NO_TRIAL] = None
    """Longest time of an epoch, after which its worker is replaced."""
    trial_timeout_seconds: Annotated[Annotated[float, pydantic.Field(gt=0)] | None, CHANGES_NO_TRIAL] = None
    """Longest time of a trial in its slot: at the end of the epoch in which it has passed, the trial is complete with
    what it has. A trial that ends no epoch for twice that time ends with its worker, as after a hung epoch."""
    checkpoint_seconds: Annotated[Annotated[float, pydantic.Field(ge=0)] | None, CHANGES_NO_TRIAL] = None
    """Least time between two checkpoints of a trial on disk; 0: one after each epoch. By default so much that they
    cost 2 % of the training of the image classifier, and 0 for every other trainer. A trial that is given back always
    leaves one of its last epoch."""
    max_retries: Annotated[int, pydantic.Field(ge=0, le=1_000), CHANGES_NO_TRIAL] = 3
    """How often a trial is tried again after its worker died or its trainer failed."""
    gpus_per_trial: Annotated[int, pydantic.Field(ge=1, le=64)] = 1
    """Number of GPUs of a trial, ``run.devices``; without GPUs, of processes that share the worker's cores."""
    keep_folders: Annotated[Literal["best", "all", "none"], CHANGES_NO_TRIAL] = "best"
    """Which trials' folders stay after they have ended."""
    seed_libraries: bool = True
    """Whether random, NumPy and torch are seeded from a trial's seed before its code starts."""
    work_in: Literal["launch", "trial"] = "launch"
    """The current folder of a trial: where the experiment was launched, or the trial's own folder."""
    command: list[str] | None = None
    """The program of ``trainer = "program"`` with its arguments, a list or text; ``{name}`` stands for a parameter."""
    args: ArgumentStyle | None = None
    """How a program gets the parameters that its command does not name: ``--name=value``, ``name=value`` or not."""
    metrics: dict[str, str] | None = None
    """Regular expressions with a group that find metrics in the output of a program."""
    stop_grace_seconds: Annotated[Annotated[float, pydantic.Field(ge=0, le=3600)] | None, CHANGES_NO_TRIAL] = None
    """How long a program may take to end after SIGTERM; 10 by default."""
    fixed: dict[str, Any] = {}
    """Values of the configuration that are not searched, by their names; what grid search takes for parameters without
    grid values."""
    forbidden: list[dict[str, Any]] = []
    """Combinations that are never drawn and left out of grids: tables of parameter = value, list of values or
    ``{ low, high }``; all of a table's conditions must hold."""
    constraints: dict[str, Bound] | None = None
    """Bounds on metrics that are known after a trial only, such as ``num_parameters = { at_most = 100000 }``; what
    violates one is nobody's best, and samplers avoid it."""
    space: SearchSpace = pydantic.Field(default_factory=lambda: Space({}))
    """The parameters that are searched."""
    try_first: list[dict[str, Any]] = []
    """Configurations, or parts of them, of the first trials of each search but grid search."""
    like: list[str] | None = None
    """Earlier experiments with the same trainer, metric and direction, whose best configurations are tried after those
    of ``try_first``, translated to this space."""
    portfolio: bool | None = None
    """Whether the first trials, after those of ``try_first`` and ``like``, have the trainer's portfolio: configurations
    that are good on average over other data. The classifier has one."""
    starts: Annotated[list[dict[str, Any]] | None, KEPT_BY_LAUNCH] = None
    """What the launch that made the experiment took from elsewhere, see :mod:`hpo.experiment.starts`."""
    provenance: dict[str, Any] = {}
    """Where an exported configuration comes from."""

    def to_json(self) -> dict[str, Any]:
        """The file with every default written out, as JSON can hold it: what the database keeps."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def own_keys(cls) -> list[str]:
        """The keys that a person may write."""
        return [name for name, field in cls.model_fields.items() if KEPT_BY_LAUNCH not in field.metadata]

    @classmethod
    def keys_that_change_no_trial(cls) -> list[str]:
        return [name for name, field in cls.model_fields.items() if CHANGES_NO_TRIAL in field.metadata]

    # What changes from one file to another.

    def differences(self, other: "StudyFile") -> list[str]:
        """Where this file differs from ``other``, as ``path: other -> this``; provenance does not count."""
        return differences(other.to_json(), self.to_json())

    def is_extension_of(self, old: "StudyFile") -> bool:
        """Whether trials of ``old`` are trials of this file: it only adds budget, repeats or samplers to it."""
        may_differ = {"budget", "repeats", "samplers", *self.keys_that_change_no_trial()}
        return (
            self.budget.includes(old.budget)
            and self.repeats >= old.repeats
            and all(sampler in self.samplers for sampler in old.samplers)
            and not keys_that_differ(old.to_json(), self.to_json()) - may_differ
            and list(self.space.parameters) == list(old.space.parameters)
        )

    def continued(self, before: "StudyFile") -> "StudyFile":
        """This file with what the experiment that it continues has and the file does not say.

        That are the samplers, whose default was another one in earlier versions, ``gpus_per_trial``, which a launch may
        have been given beside the file, and first configurations of elsewhere.
        """
        unsaid = {"samplers", "gpus_per_trial"} - self.model_fields_set
        kept: dict[str, Any] = {name: getattr(before, name) for name in unsaid}
        asked = (self.like, self.portfolio)
        if all(mine in (None, theirs) for mine, theirs in zip(asked, (before.like, before.portfolio), strict=True)):
            kept |= {"like": before.like, "portfolio": before.portfolio, "starts": before.starts}
        return self.model_copy(update=kept)

    # What follows for the experiment.

    def start_of(self, lineage: int) -> dict[str, Any] | None:
        """Where the first configuration of a lineage comes from, if it is one from elsewhere."""
        index = lineage - len(self.try_first)
        if self.starts is None or not 0 <= index < len(self.starts):
            return None
        return {key: value for key, value in self.starts[index].items() if key != "values"}

    @property
    def first_configurations(self) -> list[dict[str, Any]]:
        """Configurations, or parts of them, of the first trials: those of ``try_first``, then those from elsewhere."""
        return [*self.try_first, *(start["values"] for start in self.starts or ())]

    def study_names(self) -> list[tuple[str, SamplerSpec, int]]:
        """``<experiment>/<label>/<repeat>``, sampler and repeat of each study, repeat by repeat."""
        return [
            (f"{self.name}/{sampler.label}/{repeat}", sampler, repeat)
            for repeat in range(self.repeats)
            for sampler in self.samplers
        ]

    @property
    def fields(self) -> ConfigFields:
        """The fields of the trainer's configuration."""
        return fields_of_trainer(TRAINERS.get(self.trainer))

    def program_options(self) -> dict[str, Any]:
        """What the trainer ``program`` is built with; empty for every other trainer."""
        return {} if self.command is None else {**self.program_keys(), "objective": self.metric}

    def program_keys(self) -> dict[str, Any]:
        """The file's keys for a program; empty for every other trainer."""
        if self.command is None:
            return {}
        grace = 10.0 if self.stop_grace_seconds is None else self.stop_grace_seconds
        return {
            "command": self.command,
            "args": self.args,
            "metrics": self.metrics or {},
            "stop_grace_seconds": grace,
        }

    def max_epochs(self) -> int | None:
        """The most epochs that a configuration can have; None if the trainer does not say, or not as whole numbers.

        A text, a negative number or a fraction among the possible values means that the number is not known.
        """
        entry = TRAINERS.get(self.trainer)
        if entry is not None and isinstance(entry.max_epochs, int):
            return entry.max_epochs
        name = "epochs" if entry is None else entry.epochs_field
        if name is None:
            return None
        name = field.name if (field := self.fields.find(name)) is not None else name
        parameter = self.space.parameters.get(name)
        values: list[Any] = [given[name] for given in self.try_first if name in given]
        if isinstance(parameter, Categorical):
            values += parameter.choices
        elif parameter is not None:
            values.append(parameter.high)
        # A parameter that is not searched, not active, or not in the grid has its fixed value or default.
        has_cells = any(sampler.entry.cells is not None for sampler in self.samplers)
        if parameter is None or parameter.when or (has_cells and parameter.grid is None):
            default = self.fixed.get(name, self.fields.default(name))
            values += [] if default is MISSING and parameter is not None else [default]
        if not values or not all(_is_count(value) for value in values):
            return None
        return max(int(value) for value in values)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The one or two metrics that are optimized."""
        return objectives_of(self.model_dump(include={"metric", "direction", "second_metric", "second_direction"}))

    def search_context(self) -> SearchContext:
        """The facts about this file that samplers and pruners are built from."""
        return SearchContext(
            self.space,
            self.seed,
            self.name,
            len(self.first_configurations),
            self.max_epochs(),
            self.pruner.prunes,
            len(self.objectives),
        )

    def budget_for(self, sampler: SamplerSpec) -> Budget:
        """The budget of one study: the number of cells for a sampler that has cells, else the file's times a factor."""
        if (cells := self.feasible_cells(sampler)) is not None:
            return self.budget.of_trials(max(1, len(cells)))
        return self.budget.times(sampler.entry.budget_factor)

    def feasible_cells(self, sampler: SamplerSpec) -> Cells | None:
        """The cells of a sampler that has cells, without those that the configuration refuses; None for the others."""
        if sampler.entry.cells is None:
            return None
        if sampler.name not in self._feasible_cells:
            cells = sampler.cells(self.space) or []
            if not isinstance(self.fields, OpenFields) and can_refuse(self.fields.config):
                cells = [cell for cell in cells if self.refusal(cell) is None]
            self._feasible_cells[sampler.name] = cells
        return self._feasible_cells[sampler.name]

    @functools.cached_property
    def _feasible_cells(self) -> dict[str, Cells]:
        return {}

    # Configurations.

    def merge(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The given values of a trial: the fixed ones and ``values``, which go before them, as nested tables."""
        return configuration.merge(self.fields, self.fixed, values)

    def given_of(self, attrs: Mapping[str, Any]) -> dict[str, Any] | None:
        """The given values in a trial's user attributes; None if the trial has no configuration yet.

        A trial of an older version holds the dump of its validated configuration instead, which is given again.
        """
        if (given := attrs.get(attributes.GIVEN)) is not None:
            return dict(given)
        dump = attrs.get(attributes.CONFIG)
        return None if dump is None else {**self.merge({}), **dump}

    def configure(self, given: Mapping[str, Any]) -> Any:
        """The trainer's configuration of given values; a dict for a trainer without a model of its configuration.

        Raises:
            ConfigurationRefusedError: if the configuration refuses the combination.
            hpo.Infeasible: if a validator of the configuration raises it.
        """
        try:
            return self.fields.build(given)
        except Infeasible:
            raise
        except pydantic.ValidationError as error:
            mistakes = Mistakes()
            mistakes.add_errors(error, given, known=self.fields.names)
            reason = "; ".join(mistakes.lines)
        except Exception as error:  # a validator of the user's own
            reason = f"its validator raised {type(error).__name__}: {error}"
        own = {
            name: value
            for name, value in configuration.flat_values(given).items()
            if self.fixed.get(name, MISSING) != value
        }
        values = listed(own) or "the fixed values"
        raise ConfigurationRefusedError(
            f"the trainer {self.trainer!r} refuses a configuration of {self.name!r} ({values}): {reason}", reason
        )

    def refusal(self, values: Mapping[str, Any]) -> str | None:
        """Why the configuration refuses sampled values, or None."""
        try:
            self.configure(self.merge(values))
        except ConfigurationRefusedError as error:
            return error.reason
        except Infeasible as error:
            return error.reason
        return None

    def accepts(self, values: Mapping[str, Any]) -> bool:
        """Whether sampled values are not forbidden and the configuration accepts them."""
        return self.space.allows(values) and self.refusal(values) is None

    def as_fixed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The table ``[fixed]`` of a study file that trains with these given values, the other defaults written out."""
        return configuration.as_fixed(self.fields, given)

    def example_configs(self) -> list[Any]:
        """A few configurations in which each choice of the space occurs, the first with all numbers at their highest.

        For a trainer's probe of memory and speed, and for the check of the data sets.
        """
        examples: list[dict[str, Any]] = example_values(self.space, self.accepts)
        for sampler in self.samplers if not examples else ():
            examples += (self.feasible_cells(sampler) or [])[:1]
        return [self.configure(self.merge(values)) for values in examples]


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1 and value == int(value)
