"""The trials of an Optuna objective, which suggests its parameters while it runs: made here, sampled by the study's
sampler, written through the trial cache.

What a trial has suggested is its configuration. It is written soon after it is sampled, and a retry is suggested the
same values again.
"""

import dataclasses
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo.database import attributes
from hpo.database.claims import Claim
from hpo.search.context import SearchContext
from hpo.search.history import is_imported
from hpo.search.observed_space import ObservedSpace
from hpo.search.optuna_internals import FIXED_PARAMS
from hpo.search.sampler_registry import SamplerSpec, build_sampler
from hpo.studyfile.model import StudyFile
from hpo.trainers.objective_trial import ObjectiveTrial
from hpo.worker.trial_cache import TrialCache

OWN_ATTRIBUTES = frozenset(
    value for name, value in vars(attributes).items() if name.isupper() and isinstance(value, str)
)
"""User attributes of trials and studies that the service sets itself."""


class ObjectiveStudy(optuna.Study):
    """The study as an objective sees it in ``trial.study``; it is read, and its budget is the study file's."""

    def stop(self) -> None:
        raise RuntimeError("study.stop() is not supported: the budget ends the search; launch it with fewer trials")

    def optimize(self, *arguments: Any, **options: Any) -> None:
        raise RuntimeError("study.optimize() inside of an objective: make a study of its own for an inner search")


class ObjectiveTrials:
    """Makes the trials of one study for the objective."""

    def __init__(self, cache: TrialCache, study_file: StudyFile, name: str, context: SearchContext) -> None:
        self._cache = cache
        self._study_file = study_file
        self._name = name
        self._context = context
        self._observed = ObservedSpace()

    def make(self, claim: Claim, trial: FrozenTrial, sampler: SamplerSpec, sampler_seed: int) -> ObjectiveTrial:
        """The trial of a claim; a retry has the parameters of the attempt before it."""
        cache, trial_id = self._cache, claim.trial_id
        is_first = claim.draw == 0 and not claim.enqueued
        if is_first and claim.lineage < len(self._study_file.try_first):
            first = {**self._study_file.try_first[claim.lineage], **trial.system_attrs.get(FIXED_PARAMS, {})}
            cache.set_trial_system_attr(trial_id, FIXED_PARAMS, first)
        start = self._study_file.start_of(claim.lineage) if is_first else None
        if start is not None:
            cache.set_trial_user_attr(trial_id, attributes.START, start)
        cache.refresh(claim.study_id)
        with cache.reading(claim.study_id) as history:
            self._observed.observe(trial for trial in history.finished if not is_imported(trial))
        context = dataclasses.replace(self._context, space=self._observed.space())
        study = ObjectiveStudy(self._name, cache, pruner=optuna.pruners.NopPruner())
        study.sampler = build_sampler(sampler, context, sampler_seed)

        def sampled(params: dict[str, Any]) -> None:
            given = self._study_file.merge(params)
            cache.set_trial_user_attr(trial_id, attributes.GIVEN, given)
            cache.set_trial_user_attr(trial_id, attributes.CONFIG, given)

        if not trial.user_attrs.get(attributes.GIVEN):
            sampled({})
        made = ObjectiveTrial(
            study, trial_id, distributions=self._observed.distributions, sampled=sampled, reserved=OWN_ATTRIBUTES
        )
        made.fix(self._study_file.fixed)
        if start is not None:
            made.propose(self._study_file.first_configurations[claim.lineage])
        return made
