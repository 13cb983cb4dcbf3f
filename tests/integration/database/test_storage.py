"""Opening the database: what is refused and how it is said, the embedded server, reading as Optuna reads."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import psycopg2
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from benchmarks.postgres_server import PostgresServer, free_port
from hpo.database.address import masked, resolve_address
from hpo.database.explain import explained as explained
from hpo.database.retrying import is_transient
from hpo.database.storage import Storage, open_storage
from hpo.errors import HPOError, StorageError, UsageError

PASSWORD = "geheim-0815"


def refusal(address: str) -> str:
    """The one line with which an address is refused."""
    with pytest.raises(HPOError) as caught:
        open_storage(address)
    assert isinstance(caught.value, (StorageError, UsageError))
    # Nothing of it in what a traceback would print either.
    chain: BaseException | None = caught.value
    while chain is not None:
        assert PASSWORD not in str(chain)
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    message = str(caught.value)
    assert "\n" not in message
    return message


def execute(address: str, *statements: str) -> None:
    engine = sa.create_engine(address, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server on loopback that asks for a password."""
    with PostgresServer(tmp_path_factory.mktemp("tcp") / "data") as server:
        yield server


class TestRefusals:
    def test_nothing_listens(self) -> None:
        port = free_port()
        message = refusal(f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/hpo")
        assert message.startswith(
            f"Postgres at postgresql+psycopg2://me:***@127.0.0.1:{port}/hpo: nothing listens there"
        )

    def test_no_such_host(self) -> None:
        message = refusal(f"postgresql://me:{PASSWORD}@no-such-host.invalid/hpo")
        assert "no such host" in message

    def test_no_such_folder_of_a_socket(self, tmp_path: Path) -> None:
        message = refusal(f"postgresql://me:{PASSWORD}@/hpo?host={tmp_path}")
        assert "nothing listens there" in message

    def test_wrong_password(self, tcp: PostgresServer) -> None:
        message = refusal(f"postgresql://hpo:{PASSWORD}@127.0.0.1:{tcp.port}/hpo")
        assert "the password or user is wrong" in message
        assert "hpo:***@127.0.0.1" in message

    def test_no_password(self, tcp: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGPASSFILE", "/nonexistent")
        assert "it wants a password" in refusal(f"postgresql://hpo@127.0.0.1:{tcp.port}/hpo")

    def test_unknown_user(self, tcp: PostgresServer) -> None:
        assert "the password or user is wrong" in refusal(f"postgresql://you:{PASSWORD}@127.0.0.1:{tcp.port}/hpo")

    def test_unknown_database(self, tcp: PostgresServer) -> None:
        message = refusal(tcp.address.removesuffix("/hpo") + "/no_such")
        assert 'the database or user does not exist (database "no_such" does not exist)' in message
        assert tcp.password not in message

    def test_the_right_password(self, tcp: PostgresServer) -> None:
        storage = open_storage(tcp.address)
        assert tcp.password not in repr(storage)
        assert tcp.password not in storage.address
        assert storage.get_all_studies() == []
        storage.engine.dispose()

    def test_a_user_who_may_not_make_tables(self, tcp: PostgresServer) -> None:
        execute(
            tcp.address.replace("postgresql:", "postgresql+psycopg2:"),
            f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'",
            "CREATE SCHEMA reader",
            "GRANT USAGE ON SCHEMA reader TO reader",
        )
        message = refusal(f"postgresql://reader:{PASSWORD}@127.0.0.1:{tcp.port}/hpo?options=-csearch_path%3Dreader")
        assert "this user may not do that" in message

    def test_tables_of_something_else(self, empty_database: str) -> None:
        execute(empty_database, "CREATE TABLE invoices (id integer)", "CREATE TABLE customers (id integer)")
        message = refusal(empty_database)
        assert "holds tables of something else (customers, invoices) and none of Optuna's" in message
        with sa.create_engine(empty_database, poolclass=sa.NullPool).connect() as connection:
            assert sorted(sa.inspect(connection).get_table_names()) == ["customers", "invoices"]

    @pytest.mark.parametrize("ours", [True, False])
    def test_another_schema_version(self, ours: bool, address: str) -> None:
        if not ours:
            execute(address, "DROP TABLE hpo_trials, hpo_studies")
        execute(address, "UPDATE alembic_version SET version_num = 'v2.6.0.a'")
        assert "was made by another version of Optuna" in refusal(address)

    def test_optunas_own_database_is_taken(self, empty_database: str) -> None:
        optuna.create_study(study_name="mine", storage=RDBStorage(empty_database))
        storage = open_storage(empty_database)
        assert [study.study_name for study in storage.get_all_studies()] == ["mine"]
        assert {"hpo_studies", "hpo_trials"} <= set(sa.inspect(storage.engine).get_table_names())
        storage.engine.dispose()

    @pytest.mark.parametrize("address", ["sqlite:///x.db", f"mysql://me:{PASSWORD}@host/hpo"])
    def test_not_postgres(self, address: str) -> None:
        message = refusal(address)
        assert message.startswith(f"the storage {masked(address)} is not Postgres; expected postgresql://")

    @pytest.mark.parametrize("address", ["nonsense", f"postgresql://me:{PASSWORD}@host:port/hpo", "://", "host/hpo"])
    def test_unreadable(self, address: str) -> None:
        assert refusal(address).startswith("the storage address cannot be read; expected postgresql://")
        assert masked(address) == "(an address that cannot be read)"

    @pytest.mark.parametrize(
        ("said", "shown", "passing"),
        [
            # What a server says in the second after it was killed and started again.
            (
                "FATAL:  the database system is not yet accepting connections\n"
                "DETAIL:  Consistent recovery state has not been yet reached.\n",
                "it is starting (the database system is not yet accepting connections)",
                True,
            ),
            ("FATAL:  the database system is in recovery mode\n", "it is starting again after a crash", True),
            ("FATAL:  something that nobody has foreseen\n", "it cannot be used (something that nobody", True),
            ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"\n', "does not let this user in from here", False),
        ],
    )
    def test_what_passes_by_itself(self, said: str, shown: str, passing: bool) -> None:
        error = sa.exc.OperationalError(None, None, psycopg2.OperationalError(said))
        shown_error = explained(error, "postgresql://hpo:***@host/hpo")
        assert shown in str(shown_error)
        assert is_transient(shown_error) is passing

    def test_masked(self) -> None:
        assert masked(f"postgresql://me:{PASSWORD}@host/hpo") == "postgresql://me:***@host/hpo"
        assert PASSWORD not in masked(f"postgresql://host/hpo?user=me&password={PASSWORD}")

    def test_environment_and_argument(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HPO_STORAGE", "postgresql://a/b")
        assert resolve_address() == "postgresql+psycopg2://a/b"
        assert resolve_address("postgresql://c/d") == "postgresql+psycopg2://c/d"


HOLDER = """
import sys
from hpo.database.storage import open_storage
storage = open_storage(home=sys.argv[1])
study = storage.create_new_study([__import__("optuna").study.StudyDirection.MINIMIZE], sys.argv[2])
print(storage.engine.connect().exec_driver_sql("SELECT pg_postmaster_start_time()::text").scalar(), flush=True)
sys.stdin.read()
"""


class TestEmbedded:
    def holder(self, home: Path, name: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(home), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )

    def let_go(self, holder: "subprocess.Popen[str]") -> None:
        holder.communicate(timeout=60)
        assert holder.returncode == 0

    def server(self, home: Path) -> psutil.Process:
        return psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0]))

    def wait_until_gone(self, server: psutil.Process) -> None:
        server.wait(30)

    def test_shared_by_eight_and_stops_with_the_last(self, home: Path) -> None:
        holders = [self.holder(home, f"study {number}") for number in range(8)]
        starts = [holder.stdout.readline() for holder in holders]
        assert starts[0].startswith("20")
        assert len(set(starts)) == 1
        server = self.server(home)
        for holder in holders[:-1]:
            self.let_go(holder)
        assert server.is_running()
        self.let_go(holders[-1])
        self.wait_until_gone(server)
        again = self.holder(home, "study 8")
        assert again.stdout.readline() not in starts
        server = self.server(home)
        self.let_go(again)
        self.wait_until_gone(server)

    def test_a_killed_holder_does_not_keep_it_alive(self, home: Path) -> None:
        killed = self.holder(home, "killed")
        start = killed.stdout.readline()
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=60)
        server = self.server(home)
        assert server.is_running()
        following = self.holder(home, "following")
        assert following.stdout.readline() == start
        self.let_go(following)
        self.wait_until_gone(server)

    def test_a_killed_server_is_started_again(self, home: Path) -> None:
        first = self.holder(home, "first")
        start = first.stdout.readline()
        server = self.server(home)
        server.kill()
        self.wait_until_gone(server)
        first.kill()
        first.communicate(timeout=60)
        time.sleep(0.5)
        second = self.holder(home, "second")
        assert second.stdout.readline() not in ("", start)
        server = self.server(home)
        self.let_go(second)
        self.wait_until_gone(server)

    def test_a_home_that_cannot_be_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HPO_STORAGE", raising=False)
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError) as caught:
            open_storage(home=tmp_path / "file" / "home")
        assert str(caught.value) == (
            f"the folder {tmp_path}/file/home cannot be made (Not a directory): "
            "name one that you may write to with HPO_HOME"
        )

    def test_a_read_only_home(self, tmp_path: Path) -> None:
        """As a user who may not write there: root becomes ``nobody`` after its imports."""
        folder = tmp_path / "readonly"
        folder.mkdir(mode=0o555)
        for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            parent.chmod(0o755)
        code = (
            "import os, sys\n"
            "from hpo.errors import StorageError\n"
            "from hpo.database.storage import open_storage\n"
            "if os.geteuid() == 0: os.setuid(65534)\n"
            "try: open_storage(home=sys.argv[1])\n"
            "except StorageError as error: print(error)\n"
        )
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HPO_")}
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[3],
            env=clean,
        )
        said = f"the folder {folder} cannot be written: name one that you may write to with HPO_HOME\n"
        assert done.stdout == said, done.stderr


class TestReading:
    """Trials read in one query are those that Optuna reads through its mapper."""

    @pytest.fixture
    def filled(self, storage: Storage) -> Storage:
        study = optuna.create_study(study_name="all", storage=storage, sampler=optuna.samplers.RandomSampler(0))
        inf, nan = float("inf"), float("nan")
        space = {
            "lr": FloatDistribution(1e-5, 1.0, log=True),
            "width": IntDistribution(8, 64, step=8),
            "kind": CategoricalDistribution((None, True, 1, 2.5, "ü'\"%:{}")),
        }
        for state, value, reports in (
            (TrialState.COMPLETE, 0.1 + 0.2, {1: inf, 2: -inf, 3: nan, 4: 1e-300}),
            (TrialState.COMPLETE, inf, {}),
            (TrialState.COMPLETE, -inf, {1: 5e-324}),
            (TrialState.PRUNED, None, {1: nan}),
            (TrialState.FAIL, None, {}),
        ):
            trial = study.ask(space)
            for step, reported in reports.items():
                trial.report(reported, step)
            trial.set_user_attr("text", "ü'\"%:{}\n\\u0041 \U0001f600")
            trial.set_user_attr("nested", {"a": [1, 2.5, None, True], "b": {}})
            trial.set_user_attr("number", 0.1 + 0.2)
            storage.set_trial_system_attr(trial._trial_id, "mark:1", [1, None])
            study.tell(trial, value, state)
        study.enqueue_trial({"lr": 0.1}, user_attrs={"queued": None})
        study.ask(space)
        study.enqueue_trial({"lr": 0.2})
        optuna.create_study(study_name="another", storage=storage).ask(space)
        return storage

    def test_the_same_in_all_fields(self, filled: Storage) -> None:
        study_id = filled.get_study_id_from_name("all")
        plain = RDBStorage(filled.secret_address)
        expected = plain.get_all_trials(study_id)
        found = filled.get_all_trials(study_id)
        assert len(found) == 7
        assert [trial.state.name for trial in found] == [
            "COMPLETE",
            "COMPLETE",
            "COMPLETE",
            "PRUNED",
            "FAIL",
            "RUNNING",
            "WAITING",
        ]
        for ours, theirs in zip(found, expected, strict=True):
            # repr tells nan, signs, types and digits apart alike.
            for name, value in vars(theirs).items():
                mine = vars(ours)[name]
                if isinstance(value, dict):
                    assert {k: repr(v) for k, v in mine.items()} == {k: repr(v) for k, v in value.items()}, name
                else:
                    assert repr(mine) == repr(value), name
        plain.engine.dispose()

    def test_the_same_order_of_parameters_and_reports(self, filled: Storage) -> None:
        trial = filled.get_all_trials(filled.get_study_id_from_name("all"))[0]
        assert list(trial.params) == ["lr", "width", "kind"]
        assert list(trial.intermediate_values) == [1, 2, 3, 4]
        assert trial.values == [0.30000000000000004]

    @pytest.mark.parametrize(
        "states", [(TrialState.COMPLETE,), (TrialState.RUNNING, TrialState.WAITING), (TrialState.FAIL,)]
    )
    def test_by_state(self, states: tuple[TrialState, ...], filled: Storage) -> None:
        study_id = filled.get_study_id_from_name("all")
        plain = RDBStorage(filled.secret_address)
        expected = [trial.number for trial in plain.get_all_trials(study_id, states=states)]
        assert [trial.number for trial in filled.get_all_trials(study_id, states=states)] == expected
        assert expected
        plain.engine.dispose()

    def test_a_study_that_is_not_there(self, storage: Storage) -> None:
        with pytest.raises(KeyError):
            storage.get_all_trials(12345)
