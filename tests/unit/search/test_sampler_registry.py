"""Each sampler on a real study of a conditional space: seeded, exact, and better than chance where it should be."""

import numpy as np
import optuna
import pytest

from hpo.database import attributes
from hpo.search.pruner_registry import build_pruner
from hpo.search.sampler_registry import SAMPLERS, build_sampler
from hpo.search.samplers import GENERATION
from hpo.search.seeds import derive_seed
from tests.unit.study_files import read

SPACE = {
    "lr": {"low": 1e-3, "high": 1.0, "log": True},
    "beta": {"low": 0.0, "high": 0.9},
    "width": {"low": 8, "high": 64, "step": 8},
    "scheduler": ["constant", "step", "cosine"],
    "step_size": {"low": 1, "high": 4, "when": {"scheduler": "step"}},
    "nesterov": [True, False],
}


def loss(values):
    """Best, 0, at lr 0.1, beta 0.5, width 32."""
    return np.log10(values["lr"] / 0.1) ** 2 + (values["beta"] - 0.5) ** 2 + ((values["width"] - 32) / 64) ** 2


def new_study(study_file, label, repeat=0):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=f"{study_file.name}/{label}/{repeat}",
        direction=study_file.direction,
        pruner=build_pruner(study_file.pruner, study_file.search_context()),
    )


def draw(study, study_file, lineage, seed=0):
    """Asks for a lineage as a worker does, with a sampler made for it alone."""
    spec = study_file.samplers[0]
    study.sampler = build_sampler(spec, study_file.search_context(), derive_seed(seed, spec.label, "sample", lineage))
    trial = study.ask()
    trial.set_user_attr(attributes.LINEAGE, lineage)
    # The attribute is there before the sampler sees the trial, as in a worker.
    trial = optuna.trial.Trial(study, trial._trial_id)
    return trial, study_file.space.suggest(trial)


def search(name, num_trials=30, seed=0, **options):
    study_file = read(samplers=[{"name": name, **options}], space=SPACE, budget={"trials": 30})
    study = new_study(study_file, name)
    for lineage in range(num_trials):
        trial, values = draw(study, study_file, lineage, seed)
        study.tell(trial, loss(values))
    return study


def params(study):
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"grid"}))
def test_a_sampler_draws_valid_values_and_the_same_ones_again(name, caplog):
    num_trials = 14 if name == "gp" else 30  # gp: the first 10 are random
    study, again, other = (search(name, num_trials, seed) for seed in (0, 0, 1))
    study_file = read(space=SPACE)
    assert params(study) == params(again)
    # The seed of an ask does not move the points of qmc: they are scrambled by the study file's seed.
    assert (params(study) == params(other)) == (name == "qmc")
    for trial in study.trials:
        assert study_file.space.active_distributions(trial.params).keys() == trial.params.keys()
        assert ("step_size" in trial.params) == (trial.params["scheduler"] == "step")
        assert isinstance(trial.params["width"], int)
    assert len({str(trial.params) for trial in study.trials}) == num_trials
    assert caplog.records == []


@pytest.mark.parametrize("name", ["tpe", "cmaes", "gp"])
def test_a_model_beats_random_search(name):
    options = {"popsize": 4} if name == "cmaes" else {}
    num_trials = 18 if name == "gp" else 30
    models = [min(t.value for t in search(name, num_trials, seed, **options).trials[-8:]) for seed in range(3)]
    randoms = [min(t.value for t in search("random", num_trials, seed).trials[-8:]) for seed in range(3)]
    assert np.median(models) < np.median(randoms)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tpe", {"group": True}),
        ("tpe", {"multivariate": False, "constant_liar": False}),
        ("qmc", {"qmc_type": "halton", "scramble": False}),
        (
            "cmaes",
            {"popsize": 5, "sigma0": 0.3, "lr_adapt": True, "consider_pruned_trials": True, "n_startup_trials": 0},
        ),
        ("gp", {"deterministic_objective": True, "n_startup_trials": 3}),
    ],
)
def test_options_reach_the_sampler(name, options):
    with_options, without = search(name, 16, **options), search(name, 16)
    assert params(with_options) == params(search(name, 16, **options))
    assert params(with_options) != params(without)


def test_random_search_draws_the_same_whoever_has_finished_what():
    study_file = read(samplers=["random"], space=SPACE)
    forward, backward = new_study(study_file, "random"), new_study(study_file, "random")
    one = {lineage: draw(forward, study_file, lineage)[1] for lineage in range(6)}
    two = {lineage: draw(backward, study_file, lineage)[1] for lineage in reversed(range(6))}
    assert one == two


class TestQMC:
    def points(self, num_trials, order=None, try_first=(), repeat=0, seed=0):
        study_file = read(
            samplers=["qmc"],
            space={"lr": {"low": 0.1, "high": 1.1}, "beta": {"low": 0.0, "high": 0.5}},
            try_first=list(try_first),
            seed=seed,
        )
        study = new_study(study_file, "qmc", repeat)
        return {lineage: draw(study, study_file, lineage)[1] for lineage in order or range(num_trials)}

    def test_the_order_of_asking_does_not_matter(self):
        assert self.points(8) == self.points(8, order=[5, 2, 7, 0, 1, 3, 6, 4])

    def test_a_retry_takes_the_point_again(self):
        assert self.points(4)[2] == self.points(4, order=[0, 1, 2, 3, 2])[2]

    def test_sixteen_points_fill_sixteen_boxes(self):
        """A Sobol sequence of two dimensions: one point in each of 4 x 4 boxes, one in each of 16 strips."""
        points = self.points(16).values()
        assert len({(int((p["lr"] - 0.1) * 4), int(p["beta"] * 8)) for p in points}) == 16
        assert len({int((p["lr"] - 0.1) * 16) for p in points}) == 16
        assert len({int(p["beta"] * 32) for p in points}) == 16

    def test_try_first_costs_no_point(self):
        shifted = self.points(6, try_first=[{"lr": 0.5}, {"lr": 0.6}])
        plain = self.points(4)
        assert [shifted[lineage] for lineage in range(2, 6)] == [plain[lineage] for lineage in range(4)]

    def test_repeats_and_seeds_are_scrambled_otherwise(self):
        assert self.points(4, repeat=1) != self.points(4)
        assert self.points(4, seed=1) != self.points(4)

    def test_choices_come_equally_often(self):
        study_file = read(samplers=["qmc"], space={"lr": [0.1, 0.2], "scheduler": ["constant", "cosine"]})
        study = new_study(study_file, "qmc")
        drawn = [tuple(draw(study, study_file, lineage)[1].values()) for lineage in range(16)]
        assert {pair: drawn.count(pair) for pair in set(drawn)} == {
            (0.1, "constant"): 4,
            (0.1, "cosine"): 4,
            (0.2, "constant"): 4,
            (0.2, "cosine"): 4,
        }


class TestCmaEs:
    def finished(self, order, num_asked=None, popsize=4):
        """A study whose trials have finished in the given order, and what lineage 9 draws then."""
        study_file = read(
            samplers=[{"name": "cmaes", "popsize": popsize, "n_startup_trials": 0}],
            space={"lr": {"low": 0.1, "high": 1.1}, "beta": {"low": 0.0, "high": 0.5}},
        )
        study = new_study(study_file, "cmaes")
        asked = [draw(study, study_file, lineage) for lineage in range(num_asked or len(order))]
        for index in order:
            trial, values = asked[index]
            study.tell(trial, values["lr"] + values["beta"])
        return study, draw(study, study_file, 9)[1]

    def generations(self, study):
        return [trial.system_attrs[GENERATION] for trial in study.trials]

    def test_a_generation_is_over_after_popsize_trials(self):
        study, _ = self.finished([0, 1, 2, 3])
        assert self.generations(study) == [0, 0, 0, 0, 1]
        study, _ = self.finished([0, 1, 2])
        assert self.generations(study) == [0, 0, 0, 0]

    def test_a_latecomer_does_not_change_the_generation_that_is_over(self):
        study, before = self.finished([4, 1, 3, 2], num_asked=5)
        assert self.generations(study) == [0, 0, 0, 0, 0, 1]
        study, after = self.finished([4, 1, 3, 2, 0], num_asked=5)
        assert before == after
        assert after != self.finished([0, 1, 3, 2, 4], num_asked=5)[1]

    def test_a_second_generation_moves_towards_the_better_half(self):
        means = []
        for popsize in (4, 20):
            study = search("cmaes", 30, popsize=popsize, n_startup_trials=0)
            means.append(np.mean([loss(trial.params) for trial in study.trials[-8:]]))
        assert means[0] < means[1]

    def test_known_configurations_belong_to_no_generation(self):
        study_file = read(samplers=["cmaes"], try_first=[{"lr": 0.5}], space=SPACE)
        study = new_study(study_file, "cmaes")
        study.enqueue_trial({"lr": 0.5})
        trial, values = draw(study, study_file, 0)
        assert values["lr"] == 0.5
        assert GENERATION not in study.trials[0].system_attrs
        study.tell(trial, 1.0)
        draw(study, study_file, 1)
        assert study.trials[1].system_attrs[GENERATION] == 0

    def test_nothing_that_a_database_holds_is_run_as_code(self):
        study = search("cmaes", 20)
        kept = {key for trial in study.trials for key in trial.system_attrs}
        assert kept == {GENERATION}

    def test_pruned_trials_count_where_asked_for(self):
        def last_generation(consider):
            study_file = read(
                samplers=[{"name": "cmaes", "popsize": 4, "n_startup_trials": 0, "consider_pruned_trials": consider}],
                space=SPACE,
            )
            study = new_study(study_file, "cmaes")
            for lineage in range(4):
                trial, values = draw(study, study_file, lineage)
                trial.report(loss(values), 1)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            draw(study, study_file, 4)
            return study.trials[4].system_attrs.get(GENERATION)

        assert last_generation(True) == 1
        assert last_generation(False) == 0


def test_tpe_models_all_unconditional_parameters_together_from_the_first_model_on():
    study_file = read(samplers=["tpe"], space=SPACE)
    sampler = build_sampler(study_file.samplers[0], study_file.search_context(), 0)
    study = new_study(study_file, "tpe")
    trial = study.ask()
    space = sampler.infer_relative_search_space(study, study.trials[trial.number])
    assert sorted(space) == ["beta", "lr", "nesterov", "scheduler", "width"]


def test_a_space_of_single_values_can_be_searched():
    study_file = read(samplers=["tpe"], space={"lr": [0.5], "width": {"low": 8, "high": 8}})
    for name in SAMPLERS:
        if name == "cmaes":
            continue
        file = read(samplers=[{"name": name}], space={"lr": {"choices": [0.5], "grid": True}, "width": [8]})
        study = new_study(file, name)
        for lineage in range(12):
            trial, values = draw(study, file, lineage)
            assert values == {"lr": 0.5, "width": 8}
            study.tell(trial, 1.0)
    assert study_file.space.unconditional == {}
