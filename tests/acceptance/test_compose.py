"""The compose file: what it promises, and each service's command as a process against a Postgres that listens on TCP.

No engine runs where the tests run; the server stands in for the container ``postgres``, with its password.
"""

import json
import os
import re
import shutil
import string
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psycopg2
import pytest
import yaml

from benchmarks.postgres_server import PostgresServer, free_port
from hpo.database.storage import open_storage

from .conftest import REPOSITORY

VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return content


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("compose") / "postgres") as running:
        yield running


def interpolated(value: str, variables: dict[str, str]) -> str:
    """What compose makes of ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}``."""

    def replace(match: re.Match[str]) -> str:
        name, kind, text = match.groups()
        if variables.get(name):
            return variables[name]
        if kind == "?":
            raise KeyError(text)
        return text or ""

    return VARIABLE.sub(replace, value)


def service_environment(
    compose: dict[str, Any], service: str, server: PostgresServer, home: Path, **variables: str
) -> dict[str, str]:
    """The environment that compose gives a service, at our server's port and in our folders."""
    given = {"POSTGRES_PASSWORD": server.password, "POSTGRES_HOST": "127.0.0.1", **variables}
    entries = {k: interpolated(str(v), given) for k, v in compose["services"][service]["environment"].items()}
    entries["HPO_STORAGE"] = entries["HPO_STORAGE"].replace(":5432/", f":{server.port}/")
    entries |= {"HPO_HOME": str(home), "HPO_TRAINERS": "benchmarks.sleeping"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HPO_")}
    return {**kept, **entries, "PYTHONPATH": str(REPOSITORY)}


def command(compose: dict[str, Any], service: str, **variables: str) -> list[str]:
    return [interpolated(part, variables) for part in compose["services"][service]["command"]]


def run_hpo(arguments: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hpo", *arguments],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_what_the_file_promises(compose: dict[str, Any]) -> None:
    services = compose["services"]
    postgres = services["postgres"]
    assert any(volume.startswith("database:") for volume in postgres["volumes"])
    assert "database" in compose["volumes"]
    assert "pg_isready" in " ".join(postgres["healthcheck"]["test"])
    assert postgres["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    worker = services["worker"]
    device = worker["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    # Scalable: nothing that only one of several could have.
    assert "container_name" not in worker
    assert "ports" not in worker
    assert worker["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["dashboard"]["ports"] == ["127.0.0.1:8080:8080"]
    assert services["pgbouncer"]["profiles"] == ["pooler"]
    with pytest.raises(KeyError, match="set POSTGRES_PASSWORD"):
        interpolated(worker["environment"]["PGPASSWORD"], {})
    # Whatever characters it has: it is no part of an address.
    assert "PASSWORD" not in worker["environment"]["HPO_STORAGE"]
    # Each replica sees all GPUs and takes one of its own.
    assert device["count"] == "all"


def test_the_file_is_valid(compose: dict[str, Any]) -> None:
    schema = json.loads((REPOSITORY / "tests" / "data" / "compose_spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(compose)


def test_passwords_of_any_characters(compose: dict[str, Any], tcp: PostgresServer, tmp_path: Path) -> None:
    password = string.digits + string.ascii_letters + string.punctuation + " "
    connection = psycopg2.connect(tcp.address)
    connection.autocommit = True
    connection.cursor().execute("ALTER ROLE hpo PASSWORD %s", (password,))
    connection.close()
    given = service_environment(compose, "worker", tcp, tmp_path / "home", POSTGRES_PASSWORD=password)
    assert given["PGPASSWORD"] == password
    answered = run_hpo(["status", "no-such-experiment"], given)
    # It has been let in: what is missing is the experiment alone.
    assert answered.returncode == 1
    assert "there is no experiment 'no-such-experiment'" in answered.stderr
    assert password not in answered.stderr
    wrong = run_hpo(["status", "no-such-experiment"], {**given, "PGPASSWORD": "another"})
    assert "there is no experiment" not in wrong.stderr


@pytest.mark.release
def test_eight_replicas_use_eight_gpus(compose: dict[str, Any], server: PostgresServer, tmp_path: Path) -> None:
    """As ``--scale worker=8``: one command and one environment, all GPUs visible, and the volume of the home shared."""
    notes = tmp_path / "notes"
    (tmp_path / "replicas.py").write_text(REPLICAS.format(notes=str(notes)))
    file = tmp_path / "scaled.toml"
    file.write_text(
        'name = "scaled"\ntrainer = "replica"\nmetric = "value"\nsamplers = ["random"]\nbudget = { trials = 8 }\n'
        "[space]\nx = { low = 0.0, high = 1.0 }\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HPO_")}
    environment |= {"HPO_STORAGE": server.address, "HPO_HOME": str(tmp_path / "state"), "HPO_TRAINERS": "replicas"}
    environment |= {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(8)))}
    made = subprocess.run(
        [sys.executable, "-c", MAKE, str(file)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    arguments = command(compose, "worker", EXPERIMENT="scaled")
    replicas = [
        subprocess.Popen([sys.executable, "-m", "hpo", *arguments], env=environment, cwd=tmp_path) for _ in range(8)
    ]
    assert [replica.wait(timeout=200) for replica in replicas] == [0] * 8
    assert sorted(notes.read_text().split()) == [str(index) for index in range(8)]


REPLICAS = """
import os, pathlib, time
import hpo

class Config(hpo.Config):
    x: float = 0.5

@hpo.trainer("replica", metrics={{"value": "maximize"}})
def replica(config: Config, run: hpo.Run):
    notes = pathlib.Path({notes!r})
    with notes.open("a") as file:
        file.write(os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
    deadline = time.monotonic() + 150
    while len(notes.read_text().split()) < 8 and time.monotonic() < deadline:
        time.sleep(0.05)  # until each of the eight has a trial
    yield {{"value": config.x}}
"""
MAKE = """
import os, sys
from hpo.database.storage import open_storage
from hpo.experiment.experiment import create_experiment
from hpo.studyfile.load import load_study_file
sys.path.append(os.getcwd())
create_experiment(open_storage(os.environ["HPO_STORAGE"]), load_study_file(sys.argv[1], "replicas"), "replicas")
"""


@pytest.mark.release
def test_the_image_needs_no_git(tmp_path: Path) -> None:
    """The Dockerfile's files, installed by its command, where no git is on the path and no repository around."""
    (tmp_path / "app").mkdir()
    (tmp_path / "bin").mkdir()
    for line in (REPOSITORY / "Dockerfile").read_text().splitlines():
        for name in line.split()[1:-1] if line.startswith("COPY") else ():
            source = REPOSITORY / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, tmp_path / "app" / name, **({"symlinks": True} if source.is_dir() else {}))
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/venv/bin:{tmp_path}/bin", "HPO_HOME": f"{tmp_path}/home"}
    environment |= {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    install = [f"{tmp_path}/venv/bin/pip", "install", "-q", "--no-deps", "."]
    done = subprocess.run(install, env=environment, cwd=tmp_path / "app", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # What it depends on comes from this environment.
    packages = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (packages / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    listed = subprocess.run(
        [f"{tmp_path}/venv/bin/hpo", "list"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert listed.returncode == 0, listed.stderr
    assert "classifier" in listed.stdout


def test_the_image_has_what_it_copies() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert copied
    for name in copied:
        assert (REPOSITORY / name).exists(), name
    assert 'ENTRYPOINT ["hpo"]' in lines


def test_every_service_runs(compose: dict[str, Any], server: PostgresServer, tmp_path: Path) -> None:
    study = tmp_path / "sleepy.toml"
    study.write_text(
        'name = "sleepy"\ntrainer = "sleeping"\nmetric = "value"\nsamplers = ["random"]\nbudget = { trials = 6 }\n'
        "[fixed]\nepochs = 3\nepoch_seconds = 0.02\n[space]\nlr = { low = 1e-3, high = 1.0, log = true }\n"
    )
    environment = service_environment(compose, "launch", server, tmp_path / "home")
    entrypoint = compose["services"]["launch"]["entrypoint"]
    arguments = command(compose, "launch")
    assert arguments[0] == "studies/digits_mlp.toml"
    assert (REPOSITORY / arguments[0]).is_file()
    launched = run_hpo([*entrypoint[1:], str(study), *arguments[1:]], environment)
    assert launched.returncode == 0, launched.stderr

    # A larger budget, which the worker's own command then works off.
    study.write_text(study.read_text().replace("trials = 6", "trials = 8"))
    storage = open_storage(server.address)
    from hpo.experiment.experiment import create_experiment
    from hpo.studyfile.load import load_study_file

    create_experiment(storage, load_study_file(study, "benchmarks.sleeping"))
    worked = run_hpo(command(compose, "worker", EXPERIMENT="sleepy"), environment)
    assert worked.returncode == 0, worked.stderr
    study_id = storage.get_study_id_from_name("sleepy/random/0")
    assert len(storage.get_all_trials(study_id)) == 8
    storage.engine.dispose()
    assert server.password not in launched.stdout + launched.stderr + worked.stdout + worked.stderr


def test_the_dashboard_answers_and_asks_for_the_password(
    compose: dict[str, Any], server: PostgresServer, tmp_path: Path
) -> None:
    environment = service_environment(
        compose, "dashboard", server, tmp_path / "home", HPO_DASHBOARD_PASSWORD="let me in"
    )
    port = str(free_port())
    arguments = command(compose, "dashboard")
    arguments[arguments.index("--port") + 1] = port
    process = subprocess.Popen(
        [sys.executable, "-m", "hpo", *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://localhost:{port}/hpo/", timeout=5) as answer:
                    page = answer.read().decode()
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, process.stdout.read() if process.stdout else ""
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert 'type="password"' in page
    finally:
        process.terminate()
        process.communicate(timeout=30)
