"""Settings: what is given, then the environment, then the default; and handed to a worker as they are."""

import os
from pathlib import Path

import platformdirs
import pytest
import typer

from hpo.cli.main import app
from hpo.errors import UsageError
from hpo.settings import Settings

COMMANDS = typer.main.get_command(app).commands
VARIABLES = {
    "HPO_STORAGE": "postgresql://env/hpo",
    "HPO_HOME": "env-home",
    "HPO_DATA": "env-data",
    "HPO_TRAINERS": "env_trainers",
    "HPO_CHECKPOINT_DIR": "s3://env/checkpoints",
    "HPO_DOWNLOAD": "yes",
    "HPO_HEARTBEAT_SECONDS": "0.25",
    "HPO_GRACE_SECONDS": "9",
    "HPO_MEMORY_LIMIT_MB": "900",
    "HPO_SLOTS": "4",
}
FROM_ENVIRONMENT = Settings(
    storage="postgresql://env/hpo",
    home=Path("env-home"),
    data_dir=Path("env-data"),
    trainers="env_trainers",
    checkpoint_dir="s3://env/checkpoints",
    download=True,
    heartbeat_seconds=0.25,
    grace_seconds=9.0,
    memory_limit_mb=900,
    slots=4,
)
GIVEN = Settings(
    storage="postgresql://given/hpo",
    home=Path("given-home"),
    data_dir=Path("given-data"),
    trainers="given",
    checkpoint_dir="given-checkpoints",
    download=True,
    heartbeat_seconds=1,
    grace_seconds=2,
    memory_limit_mb=3,
    slots=5,
)
OPTIONS = [
    *("--storage", "postgresql://given/hpo", "--home", "given-home", "--data-dir", "given-data", "--trainers", "given"),
    *("--checkpoint-dir", "given-checkpoints", "--download", "--heartbeat-seconds", "1", "--grace-seconds", "2"),
    *("--memory-limit-mb", "3", "--slots", "5"),
]
DEFAULTS = Settings(
    storage=None,
    home=None,
    data_dir=None,
    trainers="",
    checkpoint_dir=None,
    download=False,
    heartbeat_seconds=5.0,
    grace_seconds=30.0,
    memory_limit_mb=None,
    slots=None,
)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("HPO_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def told(*arguments: str, command: str = "worker") -> Settings:
    """The settings that a command is told by its options and environment."""
    parameters = COMMANDS[command].make_context(command, ["e", *arguments]).params
    return Settings.given(**{name: parameters[name] for name in Settings.__dataclass_fields__})


@pytest.mark.parametrize("command", ["worker", "launch"])
@pytest.mark.usefixtures("variables")
def test_an_option_goes_before_the_environment(command: str) -> None:
    assert told(*OPTIONS, command=command) == GIVEN
    assert told(command=command) == FROM_ENVIRONMENT
    assert told("--slots", "7", command=command).slots == 7


@pytest.mark.parametrize("command", ["worker", "launch"])
def test_defaults(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(command=command) == Settings() == DEFAULTS
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    assert Settings() == DEFAULTS


@pytest.mark.usefixtures("variables")
def test_in_python_too() -> None:
    assert Settings() == FROM_ENVIRONMENT
    assert Settings(slots=7).slots == 7
    assert Settings(slots=7).storage == VARIABLES["HPO_STORAGE"]
    assert Settings(download=False, trainers="").download is False
    assert Settings(download=False, trainers="").trainers == ""


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HPO_SLOTS", "many"), ("HPO_GRACE_SECONDS", "1 min"), ("HPO_DOWNLOAD", "maybe"), ("HPO_MEMORY_LIMIT_MB", "1.5")],
)
def test_a_variable_that_cannot_be_read(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=f"the environment variable {variable} cannot be read: .*'{value}'"):
        Settings()


def test_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "user" / name)
    assert Settings().make_home() == tmp_path / "user" / "hpo"
    assert Settings().checkpoints == str(tmp_path / "user" / "hpo" / "checkpoints")
    monkeypatch.setenv("HPO_HOME", "env-home")
    assert Settings().make_home() == tmp_path / "env-home"
    assert Settings(home=Path("given")).make_home() == tmp_path / "given"
    assert Settings(home=Path("given")).artifacts == tmp_path / "given" / "artifacts"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(home=Path("~/below")).make_home() == tmp_path / "below"
    assert Settings(home=Path("given"), checkpoint_dir="elsewhere").checkpoints == "elsewhere"


@pytest.mark.parametrize("settings", [GIVEN, FROM_ENVIRONMENT, DEFAULTS], ids=["given", "environment", "defaults"])
@pytest.mark.parametrize("beside", [{}, {**VARIABLES, "HPO_LAUNCHER": "ray"}], ids=["clean", "other variables"])
def test_a_worker_is_told_the_same(
    settings: Settings, beside: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "user")
    # What the launcher was told does not depend on what was set where it ran.
    for name, value in beside.items():
        monkeypatch.setenv(name, value)
    passed = settings.environment()
    for name in [name for name in os.environ if name.startswith("HPO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HPO_HOME", "of the launcher")
    for name, value in passed.items():
        monkeypatch.setenv(name, value)
    worker = told()
    expected_home = settings.home or tmp_path / "user"
    for name in Settings.__dataclass_fields__:
        # Folders are told in full: a worker may run elsewhere.
        if name == "home":
            assert worker.home == expected_home.absolute()
        elif name == "data_dir":
            assert worker.data_dir == (settings.data_dir and settings.data_dir.absolute())
        else:
            assert getattr(worker, name) == getattr(settings, name)
