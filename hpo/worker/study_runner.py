"""What a claimed trial is to train: its grid cell, a configuration to be tried first, or what the sampler draws."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hpo.database import attributes
from hpo.database.claims import Claim
from hpo.experiment.experiment import StudyHandle
from hpo.search.optuna_internals import FIXED_PARAMS, forget_cached_trials
from hpo.search.pruner_registry import build_pruner, decision_epochs
from hpo.search.sampler_registry import build_sampler
from hpo.search.seeds import derive_seed
from hpo.studyfile.configuration import display_dump
from hpo.studyfile.model import StudyFile
from hpo.trainers.objective_trial import ObjectiveTrial
from hpo.trainers.registry import TRAINERS
from hpo.worker.objective_trials import ObjectiveTrials
from hpo.worker.trial_cache import WorkerView


@dataclass(frozen=True)
class Proposal:
    """A claimed trial and its configuration; ``error`` in place of one that the trainer's configuration refuses.

    ``optuna_trial``: what an Optuna objective gets, which suggests its parameters itself.
    """

    claim: Claim
    config: Any
    seed: int
    error: Exception | None = None
    optuna_trial: ObjectiveTrial | None = None


class StudyDesk:
    """One study as a worker uses it: proposes configurations and judges running trials.

    Sampler and pruner are not stored in the database: every worker builds the same ones from the stored study file,
    and the sampler's random state derives from the lineage, so it matters neither who asks nor how many do.
    """

    def __init__(self, view: WorkerView, study_file: StudyFile, handle: StudyHandle) -> None:
        self.view = view
        self.study_file = study_file
        self.handle = handle
        self.cells = handle.sampler.cells(study_file.space)
        self.context = study_file.search_context()
        self.decision_epochs = decision_epochs(study_file.pruner, self.context.max_epochs)
        view.know(handle.study_id, handle.name, optuna.study.StudyDirection[study_file.direction.upper()])
        self.study = optuna.Study(handle.name, view, pruner=build_pruner(study_file.pruner, self.context))
        self.objective_trials: ObjectiveTrials | None = None
        if TRAINERS[study_file.trainer].suggests:
            self.objective_trials = ObjectiveTrials(view, study_file, handle.name, self.context)

    def propose(self, claim: Claim) -> Proposal:
        """Adopts the trial and settles its configuration, which the view then has to write."""
        trial = self.view.adopt(claim)
        parts = (self.study_file.seed, self.handle.sampler.label, self.handle.repeat)
        seed = trial.user_attrs.get(attributes.SEED, derive_seed(*parts, "train", claim.lineage))
        if self.objective_trials is not None:
            self.view.set_trial_user_attr(claim.trial_id, attributes.SEED, seed)
            sampler_seed = derive_seed(*parts, "sample", claim.lineage)
            made = self.objective_trials.make(claim, trial, self.handle.sampler, sampler_seed)
            return Proposal(claim, dict(self.study_file.fixed), seed, optuna_trial=made)
        if (given := self.study_file.given_of(trial.user_attrs)) is not None:
            return self._configure(claim, given, seed)
        if self.cells is not None:
            values = self.cells[claim.lineage]
            for name, distribution in self.study_file.space.active_distributions(values).items():
                internal = distribution.to_internal_repr(values[name])
                self.view.set_trial_param(claim.trial_id, name, internal, distribution)
        else:
            values = self._sample(claim, trial, derive_seed(*parts, "sample", claim.lineage))
        return self._configure(claim, self.study_file.merge(values), seed)

    def _sample(self, claim: Claim, trial: FrozenTrial, sampler_seed: int) -> dict[str, Any]:
        first: dict[str, Any] = {}
        if claim.lineage < len(self.study_file.try_first):
            first = dict(self.study_file.try_first[claim.lineage])
            fixed = {**first, **trial.system_attrs.get(FIXED_PARAMS, {})}
            self.view.set_trial_system_attr(claim.trial_id, FIXED_PARAMS, fixed)
        self.view.refresh(claim.study_id)
        self.study.sampler = build_sampler(self.handle.sampler, self.context, sampler_seed)
        forget_cached_trials(self.study)
        values = self.study_file.space.suggest(optuna.trial.Trial(self.study, claim.trial_id))
        others = {name: value for name, value in first.items() if name not in self.study_file.space.parameters}
        return {**others, **values}

    def _configure(self, claim: Claim, given: dict[str, Any], seed: int) -> Proposal:
        """Records what the trial is given, before it is validated, so that each attempt validates the same."""
        self.view.set_trial_user_attr(claim.trial_id, attributes.SEED, seed)
        self.view.set_trial_user_attr(claim.trial_id, attributes.GIVEN, given)
        try:
            config = self.study_file.configure(given)
        except Exception as error:
            return Proposal(claim, None, seed, error)
        self.view.set_trial_user_attr(claim.trial_id, attributes.CONFIG, display_dump(config, given))
        return Proposal(claim, config, seed)

    def decides_at(self, epoch: int) -> bool:
        """Whether the pruner can decide anything after this epoch, so that the others' values are wanted."""
        return self.decision_epochs is None or epoch in self.decision_epochs

    def should_prune(self, trial_id: int) -> bool:
        """The pruner's decision on an own trial, from what the view holds now."""
        forget_cached_trials(self.study)
        return self.study.pruner.prune(self.study, self.view.get_trial(trial_id))
