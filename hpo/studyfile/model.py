"""The study file as an object, and what follows from its keys for an experiment.

:class:`StudyFile` is what the database keeps; its keys are declared in :mod:`hpo.studyfile.keys`.
"""

import functools
from collections.abc import Mapping
from typing import Any

import pydantic

from hpo.database import attributes
from hpo.errors import ConfigurationRefusedError
from hpo.search.context import SearchContext
from hpo.search.objectives import Objective, objectives_of
from hpo.search.sampler_registry import Cells, SamplerSpec
from hpo.search.space import Categorical
from hpo.studyfile import configuration
from hpo.studyfile.budget import Budget
from hpo.studyfile.config_fields import ConfigFields, OpenFields
from hpo.studyfile.config_tree import MISSING, can_refuse
from hpo.studyfile.differences import differences, keys_that_differ
from hpo.studyfile.keys import StudyFileKeys
from hpo.studyfile.sample_configs import example_values
from hpo.studyfile.stored import fields_of_trainer
from hpo.studyfile.validation import Mistakes, listed
from hpo.trainers.errors import Infeasible
from hpo.trainers.registry import TRAINERS


class StudyFile(StudyFileKeys):
    """A study file without mistakes: the keys that a person wrote, the defaults, and what a launch adds."""

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

    def fixed_anew(self) -> dict[str, Any]:
        """What a new experiment fixes besides, see `TrainerEntry.fixes_anew`; nothing for an exported configuration."""
        entry = TRAINERS.get(self.trainer)
        if entry is None or entry.fixes_anew is None or self.provenance:
            return {}
        given = {*self.fixed, *self.space.parameters, *(name for first in self.first_configurations for name in first)}
        return {name: value for name, value in entry.fixes_anew(given).items() if name not in given}

    def begun(self) -> "StudyFile":
        """This file as a new experiment keeps it."""
        return self.model_copy(update={"fixed": {**self.fixed, **self.fixed_anew()}})

    def continued(self, before: "StudyFile") -> "StudyFile":
        """This file with what the experiment that it continues has and the file does not say.

        That are the samplers, whose default was another one in earlier versions, ``gpus_per_trial``,
        ``seeds_per_trial`` and repeats, which a launch may have been given beside the file, first configurations of
        elsewhere, and what :meth:`begun` has fixed.
        """
        unsaid = {"samplers", "gpus_per_trial", "seeds_per_trial"} - self.model_fields_set
        kept: dict[str, Any] = {name: getattr(before, name) for name in unsaid}
        kept["repeats"] = max(self.repeats, before.repeats)
        if missing := {name: before.fixed[name] for name in self.fixed_anew() if name in before.fixed}:
            kept["fixed"] = {**self.fixed, **missing}
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
    def num_seeds(self) -> int:
        """Trainings of a trial."""
        return self.seeds_per_trial or 1

    def epochs_per_trial(self) -> int | None:
        """The most epochs that a trial can take, over all of its seeds; None if :meth:`max_epochs` is not known."""
        most = self.max_epochs()
        return None if most is None else most * self.num_seeds

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
