"""One study as a worker uses it: it gives each claimed trial its configuration and asks the pruner about running ones.

A configuration is the stored one of a retry, a grid's cell, one of ``try_first``, the values that a person enqueued, or
what the sampler draws. A draw that the trainer's configuration refuses is recorded and drawn again.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from hpo.database import attributes, retries
from hpo.database.claims import Claim
from hpo.database.imported import ImportedTrial
from hpo.database.retrying import is_transient
from hpo.database.trial_writes import Writes
from hpo.errors import ExperimentError, NothingSucceedsError
from hpo.experiment.experiment import StudyHandle
from hpo.search.enqueued import listed, mistakes_of
from hpo.search.history import as_trial
from hpo.search.optuna_internals import CONSTRAINT_PREFIX, FIXED_PARAMS, forget_cached_trials
from hpo.search.pruner_registry import build_pruner, decision_epochs
from hpo.search.sampler_registry import build_sampler
from hpo.search.seeds import derive_seed
from hpo.search.space import Space
from hpo.studyfile.configuration import display_dump
from hpo.studyfile.model import StudyFile
from hpo.trainers.registry import TRAINERS, TrainerEntry
from hpo.worker.failures import INFEASIBLE, classify
from hpo.worker.objective_trials import ObjectiveTrials
from hpo.worker.running_trial import RunningTrial
from hpo.worker.trial_cache import TrialCache

AUDIT_SHARE = 0.05
"""Share of the trials to be pruned that an audit trains to their end."""

MAX_DRAWS = 200
"""Configurations that are drawn for one lineage; if all of them are refused, the run ends."""

SAMPLER_DRAWS = 10
"""Those of them that a sampler draws that learns: it may propose what is refused again and again."""

MAX_ALLOWED_DRAWS = 1_000
"""Draws for one lineage, all of them forbidden by the study file, after which the run ends."""

CONSTRAINT = CONSTRAINT_PREFIX + "feasible"
"""The system attribute that Optuna's ``set_constraint("feasible", 1.0)`` writes: above 0, it is violated."""


class StudyRunner:
    """Prepares and judges the trials of one study.

    Sampler and pruner are not stored in the database: every worker builds the same ones from the stored study file,
    and the sampler's random state derives from the lineage and the number of the draw. So it matters neither who draws
    nor how many workers do.
    """

    def __init__(
        self,
        cache: TrialCache,
        study_file: StudyFile,
        handle: StudyHandle,
        imported: Sequence[ImportedTrial] = (),
        imported_space: Space | None = None,
    ) -> None:
        """``imported_space``: whose points the ``imported`` trials are; the study file's if it is None."""
        self.cache = cache
        self.study_file = study_file
        self.handle = handle
        self.cells = study_file.feasible_cells(handle.sampler)
        self.context = study_file.search_context()
        self.decision_epochs = decision_epochs(study_file.pruner, self.context.max_epochs)
        cache.preload(
            handle.study_id,
            handle.name,
            [optuna.study.StudyDirection[objective.direction.upper()] for objective in study_file.objectives],
        )
        self.study = optuna.Study(handle.name, cache, pruner=build_pruner(study_file.pruner, self.context))
        self.objective_trials: ObjectiveTrials | None = None
        if TRAINERS[study_file.trainer].suggests:
            self.objective_trials = ObjectiveTrials(cache, study_file, handle.name, self.context)
        space = imported_space or study_file.space
        known = [trial for trial in imported if trial.params.keys() <= space.parameters.keys()]
        cache.add_imported(handle.study_id, [as_trial(space, *item) for item in enumerate(known)])
        self._seed_parts = (study_file.seed, handle.sampler.label, handle.repeat)

    def prepare(self, claim: Claim) -> RunningTrial:
        """Tracks the trial and settles its configuration, which is then pending in the cache; on the database thread.

        Raises:
            ExperimentError: if the configuration refuses draw after draw.
        """
        stored = self.cache.track(claim)
        if FIXED_PARAMS in stored.system_attrs and claim.lineage >= self.context.num_first:
            # Also a retry of an enqueued trial, whose first attempt was claimed and given back before it began.
            claim = replace(claim, enqueued=True)
        seed = stored.user_attrs.get(attributes.SEED, derive_seed(*self._seed_parts, "train", claim.lineage))
        trial = RunningTrial(claim, self.handle, seed, draw=claim.draw, can_be_redrawn=self.cells is None)
        self.cache.set_trial_user_attr(claim.trial_id, attributes.SEED, seed)
        given = self.study_file.given_of(stored.user_attrs)
        try:
            if self.objective_trials is not None:
                if claim.draw >= MAX_DRAWS:
                    raise self._almost_nothing_fits(claim, "the trainer refuses it")
                trial.is_new = given is None
                trial.config = dict(self.study_file.fixed)
                seed = self._sampler_seed(claim, claim.draw)
                trial.optuna_trial = self.objective_trials.make(claim, stored, self.handle.sampler, seed)
            elif given is not None:
                trial.is_new = False
                trial.config = self.study_file.configure(given)
            elif claim.enqueued and (mistakes := self._mistakes(stored)):
                trial.refusal = "; ".join(mistakes)
            elif self.cells is not None:
                self._configure(trial, self._cell(claim))
            else:
                self._draw_until_accepted(trial, stored)
        except Exception as error:
            if is_transient(error) or isinstance(error, AlmostNothingFitsError):
                raise
            trial.error = error
        return trial

    def _configure(self, trial: RunningTrial, values: dict[str, Any]) -> None:
        """Validates a configuration and records what it is made of, so that each attempt validates the same."""
        given = self.study_file.merge(values)
        trial.config = self.study_file.configure(given)
        self.cache.set_trial_user_attr(trial.trial_id, attributes.GIVEN, given)
        self.cache.set_trial_user_attr(trial.trial_id, attributes.CONFIG, display_dump(trial.config, given))
        if trial.draw:
            self.cache.set_trial_user_attr(trial.trial_id, attributes.DRAW, trial.draw)

    def _cell(self, claim: Claim) -> dict[str, Any]:
        assert self.cells is not None
        values = self.cells[claim.lineage]
        for name, distribution in self.study_file.space.active_distributions(values).items():
            internal = distribution.to_internal_repr(values[name])
            self.cache.set_trial_param(claim.trial_id, name, internal, distribution)
        return dict(values)

    def _draw_until_accepted(self, trial: RunningTrial, stored: FrozenTrial) -> None:
        claim = trial.claim
        reason = "the trainer refuses it"
        for draw in range(claim.draw, MAX_DRAWS):
            trial.draw = draw
            values = self._draw(claim, stored, draw)
            try:
                self._configure(trial, values)
                if draw == 0 and not claim.enqueued and (start := self.study_file.start_of(claim.lineage)) is not None:
                    self.cache.set_trial_user_attr(claim.trial_id, attributes.START, start)
                return
            except Exception as error:
                if not isinstance(error, ExperimentError) and classify(error) is not INFEASIBLE:
                    raise
                reason = str(error)
            if claim.enqueued and draw == 0:
                trial.refusal = reason
                return
            self._record_refused(claim, draw, reason)
        raise self._almost_nothing_fits(claim, reason)

    def _almost_nothing_fits(self, claim: Claim, reason: str) -> "AlmostNothingFitsError":
        with self.cache.backend.engine.connect() as connection:
            num_refused = retries.count_infeasible(connection, [claim.study_id]).get(claim.study_id, 0)
        num_accepted = claim.lineage
        share = num_accepted / max(1, num_accepted + num_refused)
        return AlmostNothingFitsError(
            f"{MAX_DRAWS} configurations in a row that {self.handle.name} drew were refused; of "
            f"{num_accepted + num_refused} drawn so far {num_accepted} fitted ({100 * share:.1f} %). The last one: "
            f"{reason}. Restrict [space] so that more of it fits"
        )

    def _draw(self, claim: Claim, stored: FrozenTrial, draw: int) -> dict[str, Any]:
        """Draws a configuration: draw 0 takes what a person enqueued or ``try_first`` names, and draws the rest."""
        first: dict[str, Any] = {}
        sampler_seed = self._sampler_seed(claim, draw)
        if draw:
            self.cache.clear_draw(claim.trial_id)
        elif not claim.enqueued and claim.lineage < self.context.num_first:
            first = dict(self.study_file.first_configurations[claim.lineage])
            fixed = {**first, **stored.system_attrs.get(FIXED_PARAMS, {})}
            self.cache.set_trial_system_attr(claim.trial_id, FIXED_PARAMS, fixed)
        if self.handle.sampler.entry.learns:
            self.cache.refresh(claim.study_id, reports=False)
        values: dict[str, Any] = {}
        for again in range(MAX_ALLOWED_DRAWS):
            if again:
                self.cache.clear_draw(claim.trial_id, keep_fixed=True)
            seed = derive_seed(sampler_seed, "allowed", again) if again else sampler_seed
            values = self._suggest(claim, seed, num_refused=draw + again, is_first=not (draw or again))
            if self.study_file.space.allows(values):
                others = {name: value for name, value in first.items() if name not in self.study_file.space.parameters}
                return {**others, **values}
        raise AlmostNothingFitsError(
            f"{MAX_ALLOWED_DRAWS} configurations in a row that {self.handle.name} drew are forbidden in the file, "
            f"the last one with {listed(values)}. Restrict [space] so that less of it is forbidden"
        )

    def _suggest(self, claim: Claim, seed: int, num_refused: int, is_first: bool) -> dict[str, Any]:
        """Values of the space from the sampler, or random ones if too many of the sampler's were refused."""
        if num_refused >= SAMPLER_DRAWS or not (is_first or self.handle.sampler.entry.learns):
            # A sampler that does not learn may draw the same again for this lineage, whatever the seed (qmc).
            self.study.sampler = RandomSampler(seed)
        else:
            self.study.sampler = build_sampler(self.handle.sampler, self.context, seed)
            if self.handle.sampler.entry.learns:
                with self.cache.reading(claim.study_id) as history:
                    seen = {"results": history.num_results(), "running": len(history.open) - 1}
                self.cache.set_trial_user_attr(claim.trial_id, attributes.SEEN, seen)
        forget_cached_trials(self.study)
        try:
            return dict(self.study_file.space.suggest(optuna.trial.Trial(self.study, claim.trial_id)))
        except Exception as error:
            if is_transient(error):
                raise
            raise SamplerError(
                f"the sampler {self.handle.sampler.name!r} raised {type(error).__name__}: {error}"
            ) from error

    def _sampler_seed(self, claim: Claim, draw: int) -> int:
        parts = (*self._seed_parts, "sample", claim.lineage)
        return derive_seed(*parts, draw) if draw else derive_seed(*parts)

    def _record_refused(self, claim: Claim, draw: int, reason: str) -> None:
        """Records a refused draw as a trial that is PRUNED and violates a constraint, so that the sampler learns it."""
        trial = self.cache.get_trial(claim.trial_id)
        writes = Writes(
            params={
                name: (
                    distribution.to_internal_repr(trial.params[name]),
                    distribution_to_json(distribution),
                )
                for name, distribution in trial.distributions.items()
            },
            user_attrs={attributes.INFEASIBLE: {"lineage": claim.lineage, "draw": draw}},
            system_attrs={CONSTRAINT: 1.0},
        )
        with self.cache.backend.engine.begin() as connection:
            retries.record_refused_draw(connection, claim.study_id, claim.lineage, draw, reason, writes)

    def _mistakes(self, stored: FrozenTrial) -> list[str]:
        """What is wrong with the values that a person enqueued; [] if they can be used."""
        fixed = stored.system_attrs.get(FIXED_PARAMS, {})
        return mistakes_of(self.study_file.space, fixed, has_cells=self.cells is not None)

    def refresh_for_pruner(self) -> None:
        """Reads what the pruner compares of the other workers' trials."""
        if self.study_file.pruner.compares_marks:
            self.cache.refresh_marks(self.handle.study_id)
        else:
            self.cache.refresh(self.handle.study_id)

    def decides_at(self, epoch: int) -> bool:
        """Whether the pruner can decide anything after this epoch, so that the other trials' values are needed."""
        return self.decision_epochs is None or epoch in self.decision_epochs

    def should_prune(self, trial: RunningTrial, epoch: int, entry: TrainerEntry) -> bool:
        """Whether the trial is to be pruned after this epoch, from what the cache holds now.

        A share of those that the pruner would prune is trained on if the study file says ``audit``.
        """
        # After its last epoch there is nothing left to save by pruning: the trial is complete.
        if trial.audited or not self.decides_at(epoch) or epoch == trial.last_epoch(entry):
            return False
        if not self.would_prune(trial.trial_id):
            return False
        if self.study_file.audit and not self.stops_early:
            # Drawn from the lineage, so that a retry is drawn alike.
            seed = derive_seed(self.study_file.seed, self.handle.name, "audit", trial.claim.lineage)
            if random.Random(seed).random() < AUDIT_SHARE:
                trial.audited = True
                self.cache.set_trial_user_attr(trial.trial_id, attributes.AUDITED, epoch)
                return False
        return True

    def would_prune(self, trial_id: int) -> bool:
        """The pruner's decision on a trial of this worker."""
        forget_cached_trials(self.study)
        return self.study.pruner.prune(self.study, self.cache.get_trial(trial_id))

    @property
    def stops_early(self) -> bool:
        """Whether the pruner compares a trial with itself alone: what it stops is complete, not worse than others."""
        return self.study_file.pruner.stops_early


class SamplerError(Exception):
    """The sampler raised an error; the trial for which it was asked fails."""


class AlmostNothingFitsError(NothingSucceedsError):
    """The configuration refuses draw after draw: the run ends."""
