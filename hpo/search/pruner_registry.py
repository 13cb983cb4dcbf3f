"""The pruners that a study file may name: one row each, with everything that the service must know about a pruner.

To add a pruner, write its options model, its builder and its row here; nothing else in the service names a pruner.

A pruner's step is a number of finished epochs, counted from 1: ``min_epochs`` is the first epoch at which it may prune.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from hpo.search.context import Options, SearchContext, Unmet

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


@dataclass(frozen=True)
class PrunerEntry:
    """One row of the table of pruners.

    Attributes:
        options: the model of its options; unknown options are refused. An option called ``wrapped`` holds another
            pruner: in a study file its name or table, in validated options its :class:`PrunerSpec`.
        build: makes the pruner of options and context.
        decides: returns, of options and the largest number of epochs (None if it is not known), the epochs at which
            the pruner may prune, or None for every epoch. A pruner that may prune at no epoch never prunes.
        needs: what it needs and the study file does not have.
        stops_early: returns, of options, whether it compares a trial with itself alone. A trial that it stops is then
            complete, not worse than others.
        compares: what it looks at of other trials that run: the marks (system attributes) that it has left in them, or
            all that they have reported.
    """

    name: str
    description: str
    options: type[Options]
    build: Callable[[Any, SearchContext], "BasePruner"]
    decides: Callable[[Any, int | None], set[int] | None] = lambda options, max_epochs: None
    needs: Callable[[Any, SearchContext], list[Unmet]] = lambda options, context: []
    stops_early: Callable[[Any], bool] = lambda options: False
    compares: Literal["marks", "reports"] = "reports"


@dataclass(frozen=True)
class PrunerSpec:
    """A pruner as a study file names it, with validated options."""

    name: str = "none"
    options: Options = field(default_factory=Options)

    @property
    def entry(self) -> PrunerEntry:
        return PRUNERS[self.name]

    @property
    def prunes(self) -> bool:
        """Whether it may ever prune a trial."""
        return self.entry.decides(self.options, None) != set()

    @property
    def stops_early(self) -> bool:
        """Whether a trial that it stops is complete: it was compared with itself alone."""
        return self.entry.stops_early(self.options)

    @property
    def compares_marks(self) -> bool:
        """Whether marks are all that it looks at of other trials that run, or the pruner within it does."""
        inner = getattr(self.options, "wrapped", None)
        return self.entry.compares == "marks" if inner is None else bool(inner.compares_marks)

    def unmet(self, context: SearchContext) -> list[Unmet]:
        """What the pruner and the pruners within it need and do not have."""
        inner = getattr(self.options, "wrapped", None)
        unmet = [] if inner is None else [replace(u, path=("wrapped", *u.path)) for u in inner.unmet(context)]
        return self.entry.needs(self.options, context) + unmet

    def as_table(self) -> dict[str, Any]:
        """The study file's table, every option written out."""
        return {"name": self.name, **self.options.as_table()}


class IntervalOptions(Options):
    min_epochs: int = pydantic.Field(1, ge=1, description="first epoch at which it decides")
    interval_epochs: int = pydantic.Field(1, ge=1, description="epochs from one decision to the next")


class MedianOptions(IntervalOptions):
    n_startup_trials: int = pydantic.Field(5, ge=0, description="completed trials before anything is pruned")
    n_min_trials: int = pydantic.Field(1, ge=1, description="completed trials that must have reported the epoch")


class PercentileOptions(MedianOptions):
    percentile: float = pydantic.Field(25.0, ge=0, le=100, description="part of the trials that goes on")


class AshaOptions(Options):
    min_epochs: int = pydantic.Field(1, ge=1, description="epochs of the first rung")
    reduction_factor: int = pydantic.Field(3, ge=2, description="one of so many goes on to the next rung")
    min_early_stopping_rate: int = pydantic.Field(0, ge=0, le=60, description="rungs left out at the beginning")
    bootstrap_count: int = pydantic.Field(0, ge=0, description="trials that a rung must have seen to let one go on")


class HyperbandOptions(Options):
    min_epochs: int = pydantic.Field(1, ge=1, description="epochs of the first rung of the first bracket")
    max_epochs: int | None = pydantic.Field(None, ge=1, description="most epochs of a trial; default: the study's")
    reduction_factor: int = pydantic.Field(3, ge=2, description="one of so many goes on to the next rung")


class ThresholdOptions(IntervalOptions):
    lower: float | None = pydantic.Field(None, description="prune below")
    upper: float | None = pydantic.Field(None, description="prune above")

    @pydantic.model_validator(mode="after")
    def _bounds(self) -> "ThresholdOptions":
        if self.lower is None and self.upper is None:
            raise ValueError("give lower, upper or both")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower {self.lower:g} is above upper {self.upper:g}")
        return self


class PatientOptions(Options):
    patience: int = pydantic.Field(ge=0, description="epochs without improvement that are borne; one more prunes")
    min_delta: float = pydantic.Field(0.0, ge=0, description="by how much those epochs must be worse")
    wrapped: Any = pydantic.Field(None, description="another pruner, which then decides; without one, it prunes")

    def as_table(self) -> dict[str, Any]:
        inner = {} if self.wrapped is None else {"wrapped": self.wrapped.as_table()}
        return {"patience": self.patience, "min_delta": self.min_delta, **inner}


class WilcoxonOptions(Options):
    p_threshold: float = pydantic.Field(0.1, ge=0, le=1, description="prune below this p-value")
    n_startup_epochs: int = pydantic.Field(
        2, ge=0, description="epochs before anything is pruned; at least 2 are needed"
    )


class TopKOptions(Options):
    k: int = pydantic.Field(3, ge=1, description="number that goes on")
    min_epochs: int = pydantic.Field(1, ge=1, description="the epoch at which it decides")


def _none(options: Options, context: SearchContext) -> "BasePruner":
    from optuna.pruners import NopPruner

    return NopPruner()


def _percentile(options: MedianOptions, context: SearchContext) -> "BasePruner":
    from optuna.pruners import MedianPruner, PercentilePruner

    shared: dict[str, Any] = {
        "n_startup_trials": options.n_startup_trials,
        "n_warmup_steps": options.min_epochs,
        "interval_steps": options.interval_epochs,
        "n_min_trials": options.n_min_trials,
    }
    if isinstance(options, PercentileOptions):
        return PercentilePruner(options.percentile, **shared)
    return MedianPruner(**shared)


def _asha(options: AshaOptions, context: SearchContext) -> "BasePruner":
    from hpo.search.pruners import AshaPruner

    return AshaPruner(
        options.min_epochs, options.reduction_factor, options.min_early_stopping_rate, options.bootstrap_count
    )


def _hyperband(options: HyperbandOptions, context: SearchContext) -> "BasePruner":
    from hpo.search.pruners import LineageHyperbandPruner

    most = options.max_epochs or context.max_epochs
    assert most is not None
    brackets = num_brackets(options, most)
    return LineageHyperbandPruner(options.min_epochs, most, options.reduction_factor, brackets)


def _hyperband_needs(options: HyperbandOptions, context: SearchContext) -> list[Unmet]:
    most = options.max_epochs or context.max_epochs
    if most is None:
        what = "missing; the trainer's configuration has no field epochs, so give a trial's most epochs"
        return [Unmet(what, ("max_epochs",))]
    if options.min_epochs > most:
        what = f"{options.min_epochs} is more than the {most} epochs of a trial; expected at most {most}"
        return [Unmet(what, ("min_epochs",))]
    return []


def num_brackets(options: HyperbandOptions, max_epochs: int) -> int:
    """1 + floor(log(max_epochs / min_epochs) / log(reduction_factor)), in whole numbers; at least 1."""
    count = 1
    while options.min_epochs * options.reduction_factor**count <= max_epochs:
        count += 1
    return count


def _threshold(options: ThresholdOptions, context: SearchContext) -> "BasePruner":
    from optuna.pruners import ThresholdPruner

    return ThresholdPruner(options.lower, options.upper, options.min_epochs, options.interval_epochs)


def _patient(options: PatientOptions, context: SearchContext) -> "BasePruner":
    from optuna.pruners import PatientPruner

    from hpo.search.pruners import accept_experimental

    wrapped = None if options.wrapped is None else build_pruner(options.wrapped, context)
    with accept_experimental():
        return PatientPruner(wrapped, options.patience, options.min_delta)


def _wilcoxon(options: WilcoxonOptions, context: SearchContext) -> "BasePruner":
    from optuna.pruners import WilcoxonPruner

    from hpo.search.pruners import accept_experimental

    with accept_experimental():
        return WilcoxonPruner(p_threshold=options.p_threshold, n_startup_steps=options.n_startup_epochs)


def _first_epoch_top_k(options: TopKOptions, context: SearchContext) -> "BasePruner":
    from hpo.search.pruners import FirstEpochTopKPruner

    return FirstEpochTopKPruner(options.k, options.min_epochs)


def _decides_at_intervals(options: IntervalOptions, max_epochs: int | None) -> set[int] | None:
    if options.min_epochs == options.interval_epochs == 1 or max_epochs is None:
        return None
    return set(range(options.min_epochs, max_epochs + 1, options.interval_epochs))


MOST_EPOCHS = 2**40
"""Rungs are listed up to this epoch where no largest number of epochs is known."""


def _rungs(first: int, factor: int, max_epochs: int | None) -> set[int]:
    rungs, epoch = set(), first
    while epoch <= (MOST_EPOCHS if max_epochs is None else max_epochs):
        rungs.add(epoch)
        epoch *= factor
    return rungs


def _decides_at_rungs(options: AshaOptions, max_epochs: int | None) -> set[int] | None:
    first = options.min_epochs * options.reduction_factor**options.min_early_stopping_rate
    return _rungs(first, options.reduction_factor, max_epochs)


def _decides_at_brackets(options: HyperbandOptions, max_epochs: int | None) -> set[int] | None:
    return _rungs(options.min_epochs, options.reduction_factor, max_epochs)


def _decides_patiently(options: PatientOptions, max_epochs: int | None) -> set[int] | None:
    # The wrapped pruner may decide at any later epoch, not only at its own rungs: patience may have held it back there.
    return None if max_epochs is None else set(range(options.patience + 2, max_epochs + 1))


def _decides_from_start_up(options: WilcoxonOptions, max_epochs: int | None) -> set[int] | None:
    return None if max_epochs is None else set(range(max(2, options.n_startup_epochs), max_epochs + 1))


PRUNERS: dict[str, PrunerEntry] = {
    entry.name: entry
    for entry in (
        PrunerEntry("none", "every trial runs to its end", Options, _none, lambda options, most: set()),
        PrunerEntry(
            "median",
            "prunes what is worse than the median at the same epoch",
            MedianOptions,
            _percentile,
            _decides_at_intervals,
        ),
        PrunerEntry(
            "percentile",
            "prunes what is not among the best percentile at the same epoch",
            PercentileOptions,
            _percentile,
            _decides_at_intervals,
        ),
        PrunerEntry(
            "asha",
            "asynchronous successive halving: the best part of each rung goes on",
            AshaOptions,
            _asha,
            _decides_at_rungs,
            compares="marks",
        ),
        PrunerEntry(
            "hyperband",
            "successive halving in brackets that start at different rungs",
            HyperbandOptions,
            _hyperband,
            _decides_at_brackets,
            _hyperband_needs,
            compares="marks",
        ),
        PrunerEntry(
            "threshold",
            "prunes values outside fixed bounds",
            ThresholdOptions,
            _threshold,
            _decides_at_intervals,
        ),
        PrunerEntry(
            "patient",
            "early stopping: prunes, or asks another pruner, after epochs without improvement",
            PatientOptions,
            _patient,
            _decides_patiently,
            stops_early=lambda options: options.wrapped is None,
        ),
        PrunerEntry(
            "wilcoxon",
            "prunes what a signed-rank test over epochs finds worse than the best trial",
            WilcoxonOptions,
            _wilcoxon,
            _decides_from_start_up,
        ),
        PrunerEntry(
            "first_epoch_top_k",
            "one epoch for all; what is among the best k so far goes on",
            TopKOptions,
            _first_epoch_top_k,
            lambda options, most: {options.min_epochs},
        ),
    )
}


def build_pruner(spec: PrunerSpec, context: SearchContext) -> "BasePruner":
    """The pruner of a study. It keeps no state, so a worker builds it once."""
    return spec.entry.build(spec.options, context)


def decision_epochs(spec: PrunerSpec, max_epochs: int | None) -> set[int] | None:
    """The epochs, counted from 1, at which the pruner may prune; None: every epoch.

    At the other epochs a worker neither asks the pruner nor reads the other workers' trials.
    """
    return spec.entry.decides(spec.options, max_epochs)
