"""Each use of Optuna's private interface: these tests fail if Optuna changes the behaviour that we rely on.

``make optuna-next`` runs this file against Optuna's newest pre-release.
"""

import copy
import json
import math
import pickle

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.pruners import HyperbandPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.database import attributes
from hpo.database.schema import OWN_TABLES, optuna_tables
from hpo.database.storage import Storage
from hpo.files.artifacts import attach_text
from hpo.search import optuna_internals as internals
from hpo.search.history import History, is_infeasible
from hpo.search.pruner_registry import HyperbandOptions, num_brackets
from hpo.search.pruners import LineageHyperbandPruner

X = FloatDistribution(0.0, 1.0)


def complete(x: float, value: float = 0.0) -> FrozenTrial:
    return create_trial(value=value, params={"x": x}, distributions={"x": X})


# The database.


@pytest.fixture
def study(storage: Storage) -> Study:
    return optuna.create_study(storage=storage, study_name="study", sampler=RandomSampler(0))


def test_optunas_cache_reads_trials_with_our_query(storage: Storage, study: Study) -> None:
    """If it called another method, loading 10,000 trials would take 7 s in place of 1, silently."""
    for number in range(5):
        study.add_trial(complete(number / 10, number))
    statements: list[str] = []
    sa.event.listen(
        storage.engine, "before_cursor_execute", lambda _, __, statement, *rest: statements.append(statement)
    )
    read = optuna.storages.get_storage(storage).get_all_trials(study._study_id)
    assert [trial.value for trial in read] == [0, 1, 2, 3, 4]
    of_trials = [statement for statement in statements if "trial" in statement]
    assert len(of_trials) == 1
    assert "json_agg" in of_trials[0]
    statements.clear()
    assert [trial.value for trial in optuna.load_study(study_name="study", storage=storage).trials] == [0, 1, 2, 3, 4]
    assert not any("trial_params.param_id" in statement for statement in statements)  # Optuna's mapper


def test_our_query_reads_what_optuna_reads(storage: Storage, study: Study) -> None:
    study.enqueue_trial({"x": 0.25})
    trial = study.ask({"x": X, "n": IntDistribution(1, 9), "c": CategoricalDistribution(("a", True, 2))})
    for step, value in enumerate((1.0, math.inf, -math.inf, math.nan)):
        trial.report(value, step)
    trial.set_user_attr("note", {"deep": [1, None]})
    trial.set_constraint("feasible", 1.0)
    study.tell(trial, 0.5)
    study.ask()
    theirs = [
        optuna.storages.RDBStorage._get_trials(storage, study._study_id, None, set(), -1),
        optuna.storages.RDBStorage._get_trials(storage, study._study_id, [TrialState.RUNNING], set(), -1),
    ]
    ours = [
        storage.read_trials(study._study_id, None, set(), -1),
        storage.read_trials(study._study_id, [TrialState.RUNNING], set(), -1),
    ]
    assert [list(map(facts, trials)) for trials in ours] == [list(map(facts, trials)) for trials in theirs]
    assert [len(trials) for trials in ours] == [2, 1]


def facts(trial: FrozenTrial) -> dict[str, str]:
    """Every field of a trial as text. The order of entries and whether a number is whole do not matter."""
    fields = vars(trial).items()
    shown = {name: repr(sorted(value.items()) if isinstance(value, dict) else value) for name, value in fields}
    return {**shown, "intermediate_values": repr({s: float(v) for s, v in trial.intermediate_values.items()})}


def test_braces_in_an_address(empty_database: str) -> None:
    """RDBStorage formats its URL, so that braces have to be doubled."""
    url = sa.engine.make_url(empty_database)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text('CREATE DATABASE "a{b}c"'))
        opened = Storage(url.set(database="a{b}c").render_as_string(hide_password=False))
        assert opened.engine.url.database == "a{b}c"
        with opened.engine.connect() as connection:
            assert connection.execute(sa.text("SELECT current_database()")).scalar_one() == "a{b}c"
        pickle.loads(pickle.dumps(opened)).engine.dispose()
        opened.engine.dispose()
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text('DROP DATABASE IF EXISTS "a{b}c" WITH (FORCE)'))


COLUMNS = {
    "studies": ["study_id", "study_name"],
    "study_directions": ["study_direction_id", "direction", "study_id", "objective"],
    "study_system_attributes": ["study_system_attribute_id", "study_id", "key", "value_json"],
    "study_user_attributes": ["study_user_attribute_id", "study_id", "key", "value_json"],
    "trials": ["trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"],
    "trial_heartbeats": ["trial_heartbeat_id", "trial_id", "heartbeat"],
    "trial_intermediate_values": [
        "trial_intermediate_value_id",
        "trial_id",
        "step",
        "intermediate_value",
        "intermediate_value_type",
    ],
    "trial_params": ["param_id", "trial_id", "param_name", "param_value", "distribution_json"],
    "trial_system_attributes": ["trial_system_attribute_id", "trial_id", "key", "value_json"],
    "trial_user_attributes": ["trial_user_attribute_id", "trial_id", "key", "value_json"],
    "trial_values": ["trial_value_id", "trial_id", "objective", "value", "value_type"],
    "version_info": ["version_info_id", "schema_version", "library_version"],
}
UNIQUE = {
    "study_directions": ["study_id", "objective"],
    "study_user_attributes": ["study_id", "key"],
    "study_system_attributes": ["study_id", "key"],
    "trial_user_attributes": ["trial_id", "key"],
    "trial_system_attributes": ["trial_id", "key"],
    "trial_params": ["trial_id", "param_name"],
    "trial_values": ["trial_id", "objective"],
    "trial_intermediate_values": ["trial_id", "step"],
    "trial_heartbeats": ["trial_id"],
}
ENUMS = {
    "trialstate": ["RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING"],
    "studydirection": ["NOT_SET", "MINIMIZE", "MAXIMIZE"],
    "trialintermediatevaluetype": ["FINITE", "INF_POS", "INF_NEG", "NAN"],
    "trialvaluetype": ["FINITE", "INF_POS", "INF_NEG"],
}


def test_the_tables_that_our_sql_names(storage: Storage) -> None:
    """Claims, reports, results and deletion are SQL of our own on these tables; a change of any is a change for us."""
    assert {name: sorted(columns) for name, columns in optuna_tables().items()} == {
        name: sorted(columns) for name, columns in COLUMNS.items()
    }
    inspector = sa.inspect(storage.engine)
    assert set(inspector.get_table_names()) == {*COLUMNS, "alembic_version", *OWN_TABLES}
    for name, columns in COLUMNS.items():
        assert {column["name"] for column in inspector.get_columns(name)} == set(columns)
    for name, columns in UNIQUE.items():
        indexed = [index["column_names"] for index in inspector.get_unique_constraints(name)]
        indexed += [index["column_names"] for index in inspector.get_indexes(name) if index["unique"]]
        assert columns in indexed, name
    assert {enum["name"]: sorted(enum["labels"]) for enum in inspector.get_enums()} == {
        name: sorted(labels) for name, labels in ENUMS.items()
    }
    order = list(optuna_tables())
    assert order.index("studies") < order.index("trials") < order.index("trial_params")


def test_a_parameter_is_stored_as_a_number_and_a_distribution(storage: Storage, study: Study) -> None:
    trial = study.ask()
    trial.suggest_categorical("c", ("a", "b"))
    with storage.engine.connect() as connection:
        row = connection.execute(sa.text("SELECT param_name, param_value, distribution_json FROM trial_params")).one()
    name, value, distribution = row
    stored = CategoricalDistribution(("a", "b"))
    assert (name, stored.to_external_repr(value)) == ("c", trial.params["c"])
    assert json.loads(distribution) == json.loads(distribution_to_json(stored))


# Identifiers and changed trials.


def test_ids_are_those_of_the_database(storage: Storage, study: Study) -> None:
    other = optuna.create_study(storage=storage, study_name="other")
    other.ask()
    trial = other.ask()
    with storage.engine.connect() as connection:
        query = "SELECT t.trial_id, study_id FROM trials t JOIN studies s USING (study_id) "
        row = connection.execute(sa.text(query + "WHERE study_name = 'other' AND number = 1")).one()
    assert (internals.trial_id_of(other.trials[1]), internals.study_id_of(other)) == tuple(row)
    assert internals.storage_of(other).get_trial(row[0]).number == 1
    assert [internals.study_id_of(frozen) for frozen in storage.get_all_studies()] == [
        internals.study_id_of(study),
        internals.study_id_of(other),
    ]
    internals.set_mark(other, other.trials[1], "mark", [1, None])
    assert other.trials[1].system_attrs["mark"] == [1, None]
    assert trial.number == 1


@pytest.mark.parametrize(
    ("entries", "key", "value"),
    [
        ("params", "x", 0.75),
        ("distributions", "x", FloatDistribution(0.0, 2.0)),
        ("user_attrs", "note", "n"),
        ("system_attrs", "mark", 3),
        ("intermediate_values", 4, 0.5),
    ],
)
def test_a_copy_with_one_entry_more(entries, key, value) -> None:
    trial = complete(0.5)
    before = copy.deepcopy(trial)
    changed = internals.with_entry(trial, entries, key, value)
    assert getattr(changed, entries)[key] == value
    assert trial == before
    assert changed != trial
    assert (changed.number, internals.trial_id_of(changed)) == (trial.number, internals.trial_id_of(trial))
    if entries == "intermediate_values":
        assert (changed.last_step, trial.last_step) == (4, None)


def test_a_copy_that_has_ended() -> None:
    running = optuna.create_study().ask()
    trial = running.study.trials[0]
    ended = internals.with_end(trial, TrialState.COMPLETE, 0.25)
    assert (ended.state, ended.value, ended.values) == (TrialState.COMPLETE, 0.25, [0.25])
    pruned = internals.with_end(trial, TrialState.PRUNED, None)
    assert (pruned.state, pruned.value, pruned.values) == (TrialState.PRUNED, None, None)
    assert (trial.state, trial.value) == (TrialState.RUNNING, None)
    # A sampler must find the value where it looks for it.
    study = optuna.create_study()
    seen = internals.study_with_trials(study, [ended, complete(0.5, 0.5)])
    assert [t.value for t in seen._get_trials(states=(TrialState.COMPLETE,))] == [0.25, 0.5]


def test_importance_tells_renumbered_trials_apart() -> None:
    trials = [create_trial(value=x, params={"x": x}, distributions={"x": X}) for x in (0.1, 0.9)]
    for number, trial in enumerate(trials):
        internals.renumber(trial, number + 5)
    assert [(trial.number, internals.trial_id_of(trial)) for trial in trials] == [(5, 5), (6, 6)]


# What samplers read.


class Reader(BaseSampler):
    """Notes how many finished trials TPE and Optuna's other samplers would see at each draw."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict:
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution) -> float:
        states = (TrialState.COMPLETE,)
        self.seen.append(len(study._get_trials(deepcopy=False, states=states, use_cache=True)))
        return 0.5


def test_without_its_cached_trials_a_study_sees_new_ones() -> None:
    sampler = Reader()
    study = optuna.create_study(sampler=sampler)
    trial = study.ask()
    trial.suggest_float("a", 0, 1)
    optuna.load_study(study_name=study.study_name, storage=study._storage).add_trial(complete(0.5))
    trial.suggest_float("b", 0, 1)  # the trials as they were at the last ask
    internals.forget_cached_trials(study)
    trial.suggest_float("c", 0, 1)
    assert sampler.seen == [0, 0, 1]


def test_tpe_draws_from_the_trials_that_it_is_given() -> None:
    study = optuna.create_study()
    study.add_trials([complete(0.9 + number / 1000, number) for number in range(20)])
    shown = [complete(0.1 + number / 1000, number) for number in range(20)]
    trial = study.ask()
    frozen = study.trials[-1]
    sampler = TPESampler(seed=0, n_startup_trials=5)
    visible = internals.study_with_trials(study, shown)
    assert sampler.sample_independent(visible, frozen, "x", X) < 0.5
    relative = sampler.sample_relative(visible, frozen, {"x": X})
    assert relative["x"] < 0.5
    assert TPESampler(seed=0, n_startup_trials=5).sample_independent(study, frozen, "x", X) > 0.5
    # All else is the study's: TPE shares what it has drawn with the other workers.
    assert json.loads(study.trials[trial.number].system_attrs["tpe:relative_params:0"]) == relative


def test_the_size_of_tpes_better_group_is_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    study.add_trials([complete(number / 50, number) for number in range(50)])
    sizes = []
    build = TPESampler._build_parzen_estimator

    def spy(self, study, search_space, trials, handle_below):
        sizes.append(len(trials))
        return build(self, study, search_space, trials, handle_below)

    monkeypatch.setattr(TPESampler, "_build_parzen_estimator", spy)
    for size in (1, 7):
        sampler = TPESampler(seed=0)
        internals.set_better_group_size(sampler, size)
        sampler.sample_independent(study, study.trials[0], "x", X)
    assert sizes == [1, 48, 7, 42]  # the trial itself is left out


def test_tpe_takes_the_candidate_with_the_largest_of_the_changed_scores() -> None:
    asked = []

    class Largest(internals.TPEWithScores):
        def scores(self, study, trial, space, candidates, scores):
            asked.append((trial.number, list(space), len(candidates)))
            assert len({candidate["c"] for candidate in candidates}) > 1
            return np.array([candidate["x"] for candidate in candidates])

    space = {"x": X, "c": CategoricalDistribution(("a", "b"))}
    study = optuna.create_study(sampler=RandomSampler(0))
    for number in range(20):
        study.tell(study.ask(space), number)
    sampler = Largest(seed=0, n_startup_trials=5)
    sampler.set_num_candidates(100)
    study.sampler = sampler
    trial = study.ask(space)
    assert asked == [(20, ["c", "x"], 100)]
    assert trial.params["x"] > 0.9


def test_a_copy_with_other_system_attributes() -> None:
    trial = complete(0.5)
    changed = internals.with_system_attrs(trial, {internals.CONSTRAINT_PREFIX + "feasible": 1.0})
    assert (changed.constraints, trial.constraints) == ({"feasible": 1.0}, {})


def test_values_lie_in_the_unit_cube_as_for_optunas_samplers() -> None:
    space = {
        "lr": FloatDistribution(1e-4, 1.0, log=True),
        "beta": FloatDistribution(-1.0, 3.0),
        "width": IntDistribution(1, 4),
    }
    cube = internals.UnitCube(space)
    assert cube.bounds.tolist() == [[0.0, 1.0]] * 3
    point = cube.point({"lr": 1e-2, "beta": 0.0, "width": 1})
    assert point.tolist() == pytest.approx([0.5, 0.25, 0.125])
    assert cube.values(point) == {"lr": pytest.approx(1e-2), "beta": pytest.approx(0.0), "width": 1}
    assert cube.values(np.array([0.0, 1.0, 0.99])) == {
        "lr": pytest.approx(1e-4),
        "beta": pytest.approx(3.0),
        "width": 4,
    }


def test_fixed_params_are_suggested_as_they_are() -> None:
    """What ``enqueue_trial`` leaves is what we leave for a configuration of ``try_first``."""
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.25})
    assert study.trials[0].system_attrs[internals.FIXED_PARAMS] == {"x": 0.25}
    trial = study.ask()
    assert trial.suggest_float("x", 0, 1) == 0.25
    other = study.ask()
    internals.set_mark(study, study.trials[1], internals.FIXED_PARAMS, {"x": 0.75})
    assert optuna.trial.Trial(study, other._trial_id).suggest_float("x", 0, 1) == 0.75


def test_a_constraint_is_a_system_attribute() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_constraint("feasible", 1.0)
    assert study.trials[0].system_attrs == {internals.CONSTRAINT_PREFIX + "feasible": 1.0}
    assert is_infeasible(study.trials[0])
    study.ask()
    internals.set_mark(study, study.trials[1], internals.CONSTRAINT_PREFIX + "feasible", 0.0)
    assert study.trials[1].constraints == {"feasible": 0.0}
    assert not is_infeasible(study.trials[1])


def test_tpe_puts_infeasible_trials_into_the_worse_group(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(sampler=RandomSampler(0))
    for number in range(40):
        trial = study.ask({"x": X})
        if number % 4 == 0:
            trial.set_constraint("feasible", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, number)
    groups = []
    build = TPESampler._build_parzen_estimator

    def spy(self, study, search_space, trials, handle_below):
        groups.append([trial.number for trial in trials])
        return build(self, study, search_space, trials, handle_below)

    monkeypatch.setattr(TPESampler, "_build_parzen_estimator", spy)
    TPESampler(seed=0).sample_independent(study, study.trials[0], "x", X)
    better, worse = groups
    assert better == [1, 2, 3, 5]
    assert {4, 8, 12} < set(worse)


# Pruners.


def test_hyperband_has_the_brackets_that_it_is_given() -> None:
    assert math.floor(math.log(243, 3)) == 4  # what a logarithm of floats makes of 5
    num = num_brackets(HyperbandOptions(), 243)
    study = optuna.create_study(study_name="brackets")
    trial = study.ask()
    trial.report(1.0, 1)
    pruner = LineageHyperbandPruner(1, 243, 3, num)
    pruner.prune(study, study.trials[0])
    assert (num, len(pruner._pruners), pruner._n_brackets) == (6, 6, 6)
    plain = HyperbandPruner(1, 243, 3)
    plain.prune(study, study.trials[0])
    assert plain._n_brackets == 5


def test_a_retry_stays_in_the_bracket_of_its_lineage() -> None:
    study = optuna.create_study(study_name="brackets")
    pruner = LineageHyperbandPruner(1, 27, 3, 4)
    numbered = HyperbandPruner(1, 27, 3)
    for number in range(30):
        trial = study.ask()
        trial.set_user_attr(attributes.LINEAGE, 4)
        trial.report(number, 1)
        pruner.prune(study, study.trials[number])
        numbered.prune(study, study.trials[number])
    assert len({pruner._get_bracket_id(study, trial) for trial in study.trials}) == 1
    assert len({numbered._get_bracket_id(study, trial) for trial in study.trials}) > 1
    assert pruner._get_bracket_id(study, study.trials[0]) == numbered._get_bracket_id(study, study.trials[4])


def test_hyperband_asks_for_the_bracket_that_we_choose() -> None:
    """Its pruning goes through the overridden method: a trial of the bracket that begins at epoch 9 ends there."""
    asked = []

    class Spy(LineageHyperbandPruner):
        def _get_bracket_id(self, study: Study, trial: FrozenTrial) -> int:
            asked.append(trial.number)
            return 2

    study = optuna.create_study(pruner=Spy(1, 9, 3, 3))
    ends = []
    for number in range(8):
        trial = study.ask()
        for epoch in range(1, 10):
            trial.report(float(number), epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                ends.append(epoch)
                break
        else:
            study.tell(trial, float(number))
    assert set(asked) == set(range(8))
    assert set(ends) == {9}


# The history, and what the dashboard shows.


def test_a_history_reads_what_optuna_writes(study: Study) -> None:
    history = History()
    for x in (0.1, 0.2):
        study.add_trial(complete(x, x))
    study.ask()
    for trial in study.get_trials(deepcopy=False):
        history.put(trial)
    assert [trial.number for trial in history.in_order()] == [0, 1, 2]
    assert [trial.params for trial in history.finished] == [{"x": 0.1}, {"x": 0.2}]
    assert study.direction == StudyDirection.MINIMIZE


def test_the_dashboards_figures_are_read_as_they_were_saved(study: Study) -> None:
    import plotly.graph_objects
    from optuna_dashboard import save_plotly_graph_object

    figure = plotly.graph_objects.Figure({"data": [{"type": "scatter", "y": [1, 2]}]})
    save_plotly_graph_object(study, figure, graph_object_id="ours")
    storage = internals.storage_of(study)
    figures = internals.dashboard_figures(storage.get_study_system_attrs(internals.study_id_of(study)))
    assert figures == {"ours": figure.to_json()}


def test_optuna_finds_the_artifacts_that_we_attach(storage: Storage, study: Study, tmp_path) -> None:
    trial = study.ask()
    attach_text(storage, internals.trial_id_of(study.trials[0]), "curves.csv", "a,b\n", tmp_path)
    (meta,) = optuna.artifacts.get_all_artifact_meta(trial)
    assert (meta.filename, meta.mimetype) == ("curves.csv", "text/csv")
    store = optuna.artifacts.FileSystemArtifactStore(str(tmp_path))
    with store.open_reader(meta.artifact_id) as file:
        assert file.read() == b"a,b\n"
