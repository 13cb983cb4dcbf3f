"""A worker's view: what its samplers and pruners see is what the database holds, at the promised number of reads."""

import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from hpo.database import attributes, claims, retries, trial_writes
from hpo.database.claims import Claim
from hpo.database.storage import Storage
from hpo.database.trial_writes import Writes
from hpo.errors import StorageError
from hpo.experiment.experiment import create_experiment
from hpo.studyfile.load import parse_study_file
from hpo.worker.study_runner import StudyRunner
from hpo.worker.trial_cache import TrialCache
from tests.integration.trials_support import claim_one, finish, new_study, statements
from tests.unit.study_files import study as study_table

SPACE = {"lr": FloatDistribution(1e-3, 1.0, log=True), "width": IntDistribution(8, 64)}


class Peer:
    """A worker without a trainer: claims trials, reports, ends them, as :mod:`hpo.worker` does."""

    def __init__(self, storage: Storage, study_id: int, name: str) -> None:
        self.storage, self.study_id, self.name = storage, study_id, name
        self.cache = TrialCache(storage, auto_refresh=False)
        self.claims: list[Claim] = []

    def act(self, draws: random.Random) -> None:
        acts: list[Callable[[random.Random], None]] = [self.claim, self.claim]
        if self.claims:
            acts += [self.report] * 4 + [self.note, self.write, self.write, self.end, self.give_back, self.lose]
        draws.choice(acts)(draws)

    def claim(self, draws: random.Random) -> None:
        taken, _ = claims.claim(self.storage.engine, [self.study_id], self.name, draws.randint(1, 2))
        for claim in taken:
            self.cache.track(claim)
            self.claims.append(claim)
            if claim.fresh:
                for name, distribution in SPACE.items():
                    value = draws.uniform(0.01, 1) if name == "lr" else float(draws.randint(8, 64))
                    self.cache.set_trial_param(claim.trial_id, name, value, distribution)

    def report(self, draws: random.Random) -> None:
        trial_id = draws.choice(self.claims).trial_id
        step = len(self.cache.get_trial(trial_id).intermediate_values) + 1
        value = draws.choice([draws.random(), float("nan"), float("inf")]) if draws.random() < 0.2 else draws.random()
        self.cache.set_trial_intermediate_value(trial_id, step, value)

    def note(self, draws: random.Random) -> None:
        trial_id = draws.choice(self.claims).trial_id
        self.cache.set_trial_system_attr(trial_id, f"completed_rung_{draws.randint(0, 2)}", draws.random())
        self.cache.set_trial_user_attr(trial_id, attributes.METRICS, {"value": draws.random()})

    def write(self, draws: random.Random | None = None) -> None:
        with self.storage.engine.begin() as connection:
            self.cache.leases.mark_lost(trial_writes.write(connection, self.cache.pending.take()))

    def end(self, draws: random.Random) -> None:
        claim = self.claims.pop(draws.randrange(len(self.claims)))
        state = draws.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED])
        value = draws.random()
        self.cache.set_ended(claim.trial_id, state, value)
        with self.storage.engine.begin() as connection:
            writes = self.cache.pending.take_trial(claim.trial_id)
            trial_writes.finish(connection, claim.trial_id, state, value, 3, writes)
        self.cache.untrack(claim.trial_id)

    def give_back(self, draws: random.Random) -> None:
        claim = self.claims.pop(draws.randrange(len(self.claims)))
        with self.storage.engine.begin() as connection:
            writes = self.cache.pending.take_trial(claim.trial_id)
            retries.give_back(connection, claim.trial_id, "asked to end", writes)
        self.cache.untrack(claim.trial_id)

    def lose(self, draws: random.Random) -> None:
        """Somebody takes this worker for dead; it finds out and drops the trial."""
        claim = self.claims.pop(draws.randrange(len(self.claims)))
        with self.storage.engine.begin() as connection:
            retries.retry_or_fail(connection, claim.trial_id, "silent", max_retries=2)
            self.cache.leases.mark_lost(trial_writes.beat(connection, self.cache.leases.trial_ids))
        assert self.cache.leases.is_lost(claim.trial_id)
        self.cache.untrack(claim.trial_id)


def in_database(storage: Storage, study_id: int) -> list[FrozenTrial]:
    """What is to be seen, read afresh: of each lineage its latest attempt."""
    trials = Storage(storage.secret_address)
    latest = {trial.user_attrs[attributes.LINEAGE]: trial for trial in trials.get_all_trials(study_id)}
    trials.engine.dispose()
    return sorted(latest.values(), key=lambda trial: trial.number)


def content(trial: FrozenTrial) -> dict[str, Any]:
    """All that samplers and pruners may look at; of a running trial its worker alone knows when it began, and who."""
    fields = {name: value for name, value in vars(trial).items() if not name.startswith("_datetime")}
    fields["_user_attrs"] = {k: v for k, v in trial.user_attrs.items() if k != attributes.WORKER}
    fields.pop("datetime_start", None)
    # Not in the order in which they were set, but in their own; repr tells nan and types apart alike.
    return {k: repr(sorted(v.items()) if isinstance(v, dict) else v) for k, v in fields.items()}


@pytest.fixture
def peers(storage: Storage) -> list[Peer]:
    study_id = new_study(storage, 40)
    return [Peer(storage, study_id, f"here:{index}") for index in range(3)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_view_shows_what_the_database_holds(seed: int, peers: list[Peer], storage: Storage) -> None:
    draws = random.Random(seed)
    states: set[TrialState] = set()
    hidden = 0
    for turn in range(160):
        draws.choice(peers).act(draws)
        if turn % 8:
            continue
        for peer in peers:
            peer.write()
        expected = in_database(storage, peers[0].study_id)
        for peer in peers:
            peer.cache.refresh(peer.study_id)
            seen = peer.cache.get_all_trials(peer.study_id)
            assert [content(trial) for trial in seen] == [content(trial) for trial in expected]
            # When others began and ended, too.
            for mine, theirs in zip(seen, expected, strict=True):
                if mine._trial_id not in peer.cache.leases.trial_ids:
                    assert (mine.datetime_start, mine.datetime_complete) == (
                        theirs.datetime_start,
                        theirs.datetime_complete,
                    )
        states |= {trial.state for trial in expected}
        hidden = len(storage.get_all_trials(peers[0].study_id)) - len(expected)
    assert states >= {TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE, TrialState.PRUNED}
    assert hidden > 5


def test_samplers_and_pruners_decide_alike(peers: list[Peer], storage: Storage) -> None:
    """On the view as on the database itself, where trials that were retried are FAIL and ignored."""
    draws = random.Random(4)
    for _ in range(120):
        draws.choice(peers).act(draws)
    peer = peers[0]
    for each in peers:
        each.write()
    peer.cache.refresh(peer.study_id)
    name = storage.get_study_name_from_id(peer.study_id)
    drawn: list[Any] = []
    decided: list[Any] = []
    for each in (peer.cache, storage):
        study = optuna.Study(name, each)
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state is not TrialState.FAIL]
        sampler = optuna.samplers.TPESampler(seed=5, n_startup_trials=2, multivariate=False)
        drawn.append([sampler.sample_independent(study, trials[0], n, SPACE[n]) for n in ("lr", "width", "lr")])
        decided.append(
            [
                (trial.number, percentile, bool(pruner.prune(study, trial)))
                for percentile in (10, 30, 50, 70, 90)
                for pruner in [optuna.pruners.PercentilePruner(percentile, n_startup_trials=1)]
                for trial in trials
            ]
        )
    assert drawn[0] == drawn[1]
    assert decided[0] == decided[1]
    assert {prunes for _, _, prunes in decided[0]} == {True, False}


def test_asking_costs_one_read_whatever_there_is(peers: list[Peer], storage: Storage) -> None:
    peer, other = peers[0], peers[1]
    for index in range(20):
        finish(storage, claim_one(storage, peer.study_id).trial_id, value=index / 20)
    other.claim(random.Random(0))
    other.write()
    with statements(storage.engine) as executed:
        peer.cache.refresh(peer.study_id)
        assert len(executed) == 1
        # Everything else is answered without the database.
        for _ in range(10):
            assert len(peer.cache.get_all_trials(peer.study_id)) == 20 + len(other.claims)
            assert peer.cache.get_all_trials(peer.study_id, deepcopy=False, states=(TrialState.WAITING,)) == []
            with peer.cache.reading(peer.study_id) as history:
                assert len(history.finished) == 20
        assert len(executed) == 1
        executed.clear()
        peer.cache.refresh(peer.study_id)
    # Finished trials never change and are not read again: only what is unfinished, and what is new.
    ((_, parameters),) = executed
    assert sorted(parameters["included"]) == sorted(claim.trial_id for claim in other.claims)
    assert parameters["after"] == max(trial._trial_id for trial in storage.get_all_trials(peer.study_id))


def test_an_own_trial_costs_no_statement_until_it_is_written(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    view = TrialCache(storage, auto_refresh=False)
    view.refresh(study_id)
    claim = claim_one(storage, study_id)
    with statements(storage.engine) as executed:
        view.track(claim)
        for name, distribution in SPACE.items():
            view.set_trial_param(claim.trial_id, name, 16.0 if name == "width" else 0.5, distribution)
        for step in range(1, 1001):
            view.set_trial_intermediate_value(claim.trial_id, step, 0.5)
            view.set_trial_user_attr(claim.trial_id, f"note {step}", step)
            view.set_trial_system_attr(claim.trial_id, f"mark {step}", step)
        assert view.get_trial(claim.trial_id).params == {"lr": 0.5, "width": 16}
        assert executed == []
        with storage.engine.begin() as connection:
            assert trial_writes.write(connection, view.pending.take()) == set()
        # One to see that it still runs, and one for each of the four tables.
        assert len(executed) == 5
        executed.clear()
        with storage.engine.begin() as connection:
            assert retries.give_back(connection, claim.trial_id, "asked to end")
        retry = claim_one(storage, study_id)
        executed.clear()
        # A retry holds what the lineage had, which is read.
        assert view.track(retry).params == {"lr": 0.5, "width": 16}
        assert len(executed) == 1
    stored = storage.get_trial(claim.trial_id)
    assert len(stored.intermediate_values) == 1000
    assert stored.user_attrs["note 1000"] == stored.system_attrs["mark 1000"] == 1000


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid", "qmc", "cmaes", "gp"])
def test_proposing_reads_once_and_judging_never(sampler: str, storage: Storage) -> None:
    space = {"lr": {"low": 1e-3, "high": 1.0, "log": True, "grid": 12}}
    table = study_table(samplers=[sampler], pruner={"name": "median", "n_startup_trials": 1}, space=space)
    experiment, _ = create_experiment(storage, parse_study_file(table, "study.toml"))
    view = TrialCache(storage, auto_refresh=False)
    runner = StudyRunner(view, experiment.study_file, experiment.studies[0])
    for _ in range(11):
        claim = claim_one(storage, runner.handle.study_id)
        with statements(storage.engine) as executed:
            proposal = runner.prepare(claim)
        reads = [statement for statement, _ in executed]
        # A grid's cell is known without looking at anything, and others learn nothing from what they would see.
        assert len(reads) == (0 if sampler in ("grid", "random", "qmc") else 1), reads
        assert proposal.error is None
        for step in range(1, 4):
            view.set_trial_intermediate_value(claim.trial_id, step, claim.lineage * 0.1)
            with statements(storage.engine) as executed:
                view.refresh(runner.handle.study_id)
                runner.would_prune(claim.trial_id)
                runner.would_prune(claim.trial_id)
            assert len(executed) == 1
        view.set_ended(claim.trial_id, TrialState.COMPLETE, claim.lineage * 0.1)
        with storage.engine.begin() as connection:
            writes = view.pending.take_trial(claim.trial_id)
            assert trial_writes.finish(connection, claim.trial_id, TrialState.COMPLETE, claim.lineage * 0.1, 3, writes)
        view.untrack(claim.trial_id)


def test_what_one_holds_is_not_changed_under_its_hands(storage: Storage) -> None:
    study_id = new_study(storage, 1)
    view = TrialCache(storage, auto_refresh=False)
    claim = claim_one(storage, study_id)
    before = view.track(claim)
    view.set_trial_intermediate_value(claim.trial_id, 1, 0.5)
    view.set_trial_system_attr(claim.trial_id, "completed_rung_0", 0.5)
    assert (before.intermediate_values, before.system_attrs) == ({}, {})
    held = view.get_all_trials(study_id, deepcopy=False)
    view.set_ended(claim.trial_id, TrialState.COMPLETE, 0.5)
    assert held[0].state is TrialState.RUNNING
    assert view.get_all_trials(study_id, deepcopy=False)[0].values == [0.5]


def test_a_later_value_wins_over_what_could_not_be_written(storage: Storage) -> None:
    view = TrialCache(storage, auto_refresh=False)
    claim = claim_one(storage, new_study(storage, 1))
    view.track(claim)
    view.set_trial_intermediate_value(claim.trial_id, 1, 0.1)
    view.set_trial_intermediate_value(claim.trial_id, 2, 0.2)
    view.set_trial_user_attr(claim.trial_id, "note", "old")
    failed = view.pending.take()
    view.set_trial_intermediate_value(claim.trial_id, 2, 0.3)
    view.set_trial_user_attr(claim.trial_id, "note", "new")
    view.set_trial_param(claim.trial_id, "lr", 0.5, SPACE["lr"])
    view.pending.put_back(failed)
    assert view.pending.take() == {
        claim.trial_id: Writes({"lr": (0.5, distribution_to_json(SPACE["lr"]))}, {"note": "new"}, {}, {1: 0.1, 2: 0.3})
    }
    # What is no longer our own is not taken back.
    view.untrack(claim.trial_id)
    view.pending.put_back(failed)
    assert view.pending.take() == {}


def test_of_a_deleted_study_the_own_trials_are_lost(storage: Storage) -> None:
    doomed, other = new_study(storage, 2), new_study(storage, 2)
    view = TrialCache(storage, auto_refresh=False)
    claims = [claim_one(storage, study_id) for study_id in (doomed, other)]
    for claim in claims:
        view.track(claim)
    storage.delete_study(doomed)
    view.refresh(doomed)
    view.refresh(other)
    assert [view.leases.is_lost(claim.trial_id) for claim in claims] == [True, False]
    with pytest.raises(KeyError):
        TrialCache(storage).get_all_trials(doomed)


@pytest.fixture
def copied(storage: Storage) -> Iterator[tuple[TrialCache, int]]:
    study_id = new_study(storage, 2)
    view = TrialCache(storage, auto_refresh=False)
    view.track(claim_one(storage, study_id))
    copy = pickle.loads(pickle.dumps(view))
    yield copy, study_id
    copy.backend.engine.dispose()


def test_a_copy_for_another_process_owns_nothing_and_reads_anew(copied: tuple[TrialCache, int]) -> None:
    copy, study_id = copied
    assert copy.leases.trial_ids == []
    assert [trial.state for trial in copy.get_all_trials(study_id)] == [TrialState.RUNNING]


def test_a_transaction_that_fails_leaves_its_writes_pending(storage: Storage) -> None:
    cache = TrialCache(storage, auto_refresh=False)
    claim = claim_one(storage, new_study(storage, 1))
    cache.track(claim)
    cache.set_trial_intermediate_value(claim.trial_id, 1, 0.1)
    cache.set_trial_system_attr(claim.trial_id, "completed_rung_0", 0.1)

    def give_back(pid: bool) -> None:
        with cache.pending.transaction(storage.engine, claim.trial_id) as (connection, writes):
            assert retries.give_back(connection, claim.trial_id, "asked to end", writes)
            if pid:  # the connection dies at the commit
                connection.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises((sa.exc.OperationalError, StorageError)):
        give_back(True)
    give_back(False)
    ended = storage.get_trial(claim.trial_id)
    assert ended.intermediate_values == {1: 0.1}
    # ASHA's mark is there for the retry, which is not judged at this rung again.
    assert storage.get_all_trials(claim.study_id)[-1].system_attrs == {"completed_rung_0": 0.1}


def test_a_trial_that_is_drawn_again_keeps_nothing_of_the_refused_draw(storage: Storage) -> None:
    cache = TrialCache(storage, auto_refresh=False)
    claim = claim_one(storage, new_study(storage, 1))
    cache.track(claim)
    cache.set_trial_system_attr(claim.trial_id, "fixed_params", {"lr": 0.5})
    cache.set_trial_param(claim.trial_id, "lr", 0.5, SPACE["lr"])
    cache.clear_draw(claim.trial_id)
    assert cache.get_trial(claim.trial_id).params == {}
    assert cache.pending.take() == {claim.trial_id: Writes({}, {}, {"fixed_params": {}}, {})}


def marks_of(trials: list[FrozenTrial]) -> dict[int, dict[str, Any]]:
    """Lineage -> what rungs hold of its latest attempt."""
    marks = {
        trial.user_attrs[attributes.LINEAGE]: {
            key: value for key, value in trial.system_attrs.items() if key.startswith("completed_rung_")
        }
        for trial in trials
    }
    return {lineage: of for lineage, of in marks.items() if of}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_marks_alone_show_what_rungs_hold(seed: int, peers: list[Peer], storage: Storage) -> None:
    """As a pruner with rungs sees them, whatever else has been read; trials that have ended are read whole."""
    draws = random.Random(seed)
    for peer in peers:
        peer.note = _pass_rung.__get__(peer)  # type: ignore[method-assign]
        peer.cache.refresh_marks(peer.study_id)
    num_marks = 0
    for turn in range(120):
        draws.choice(peers).act(draws)
        if draws.random() < 0.1:
            draws.choice(peers).cache.refresh(peers[0].study_id, reports=False)
        if turn % 8:
            continue
        for peer in peers:
            peer.write()
        expected = in_database(storage, peers[0].study_id)
        for peer in peers:
            peer.cache.refresh_marks(peer.study_id)
            seen = marks_of(peer.cache.get_all_trials(peer.study_id))
            assert seen == marks_of(expected)
            num_marks += len(seen)
    assert num_marks > 20
    for peer in peers:
        peer.write()
    expected = in_database(storage, peers[0].study_id)
    for peer in peers:
        peer.cache.refresh(peer.study_id, reports=False)
        seen_whole = peer.cache.get_all_trials(peer.study_id)
        assert [trial.number for trial in seen_whole] == [trial.number for trial in expected]
        for mine, theirs in zip(seen_whole, expected, strict=True):
            assert (mine.state, mine.params) == (theirs.state, theirs.params)
            if mine.state.is_finished():
                assert content(mine) == content(theirs)


def _pass_rung(peer: Peer, draws: random.Random) -> None:
    trial = peer.cache.get_trial(draws.choice(peer.claims).trial_id)
    rung = sum(key.startswith("completed_rung_") for key in trial.system_attrs)
    peer.cache.set_trial_system_attr(trial._trial_id, f"completed_rung_{rung}", draws.random())


def test_running_trials_are_read_once_to_draw(peers: list[Peer], storage: Storage) -> None:
    """A thousand workers that read each other's running trials again and again are what the database does."""
    peer, other = peers[0], peers[1]
    draws = random.Random(0)
    for _ in range(4):
        other.claim(draws)
    other.write()
    peer.cache.refresh(peer.study_id, reports=False)
    other.report(draws)
    ended = other.claims[0].trial_id
    other.write()
    with storage.engine.begin() as connection:
        trial_writes.finish(connection, ended, TrialState.COMPLETE, 0.5, 3, Writes())
    with statements(storage.engine) as executed:
        peer.cache.refresh(peer.study_id, reports=False)
    ((_, parameters),) = executed
    assert parameters["included"] == []
    assert sorted(parameters["ended_of"]) == sorted(claim.trial_id for claim in other.claims)
    states = {trial._trial_id: trial.state for trial in peer.cache.get_all_trials(peer.study_id)}
    assert states.pop(ended) is TrialState.COMPLETE
    assert set(states.values()) == {TrialState.RUNNING}
