"""The command line's surface: options and their variables, exit codes, precedence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hpo.cli.main import app

COMMANDS = {
    "compare",
    "dashboard",
    "delete",
    "doctor",
    "enqueue",
    "extend",
    "pause",
    "prune",
    "resume",
    "show",
    "stop",
    "export",
    "import",
    "init",
    "launch",
    "list",
    "logs",
    "retry",
    "status",
    "train",
    "worker",
    "workers",
    "server",
    "manifest",
}
GROUP = typer.main.get_command(app)
OPTIONS = [
    pytest.param(command, option, id=f"{name} {option.opts[0]}")
    for name, command in GROUP.commands.items()
    for option in command.params
    if option.param_type_name == "option" and option.name != "help"
]


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HPO_")}
    return subprocess.run(
        [sys.executable, "-m", "hpo", *arguments],
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_the_commands():
    assert set(GROUP.commands) == COMMANDS


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_option_shows_its_variable(command, option):
    variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar
    assert variables
    assert all(variable.startswith("HPO_") for variable in variables)
    assert option.show_envvar
    assert option.help


def test_help_in_words():
    shown = run("launch", "--help", COLUMNS="200", TERM="dumb")
    assert shown.returncode == 0
    for variable in ("HPO_STORAGE", "HPO_HOME", "HPO_DATA", "HPO_TRAINERS", "HPO_WORKERS"):
        assert f"[env var: {variable}" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("heavy", ["torch", "optuna", "plotly", "sqlalchemy", "pydantic"])
def test_help_imports_nothing_heavy(heavy: str):
    code = (
        "import sys; sys.argv = ['hpo', '--help']\n"
        "import hpo.cli.main\n"
        "try: hpo.cli.main.main()\n"
        "except SystemExit: pass\n"
        f"sys.exit({heavy!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["launch", "absent.toml"], 2, "absent.toml"),
        (
            ["launch", "absent.toml", "--launcher", "locl"],
            2,
            "--launcher must be one of",
        ),
        (["launch"], 2, "Missing argument"),
        (["lunch"], 2, "No such command"),
        (["status", "x", "--storage", "sqlite:///x.db"], 2, "the storage sqlite:///x.db is not Postgres"),
        (["status", "x", "--storage", "nonsense"], 2, "the storage address cannot be read"),
        (["list", "--trainers", "no_such_module"], 2, "the trainer module 'no_such_module' cannot be imported"),
        (["status", "x", "--storage", "postgresql://u:geheim@127.0.0.1:1/d"], 1, "nothing listens there"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, said: str, tmp_path: Path):
    done = run(*arguments, HPO_HOME=str(tmp_path / "home"), TERM="dumb", COLUMNS="200")
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr + done.stdout
    assert not (tmp_path / "home").exists()


def test_list_has_the_kinds_and_the_sizes():
    listed = json.loads(run("list", "--json").stdout)
    assert list(listed) == ["trainers", "networks", "data sets", "samplers", "pruners", "launchers", "parameters"]
    assert list(listed["launchers"]) == ["local", "inline", "ray", "slurm"]
    assert {"grid", "random", "tpe", "qmc", "cmaes", "gp"} <= set(listed["samplers"])
    assert {"none", "median", "percentile", "asha", "hyperband", "threshold", "patient", "wilcoxon"} <= set(
        listed["pruners"]
    )
    assert {"mnist", "cifar10", "digits"} <= set(listed["data sets"])
    assert all(line and "\n" not in line for kind in listed.values() for line in kind.values())
    table = run("list").stdout
    assert all(name in table for kind in listed.values() for name in kind)


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, object]:
    """What ``hpo worker`` is told, by its options and environment."""
    for name in [name for name in os.environ if name.startswith("HPO_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return dict(GROUP.commands["worker"].make_context("worker", arguments).params)


def test_option_then_environment_then_default(monkeypatch: pytest.MonkeyPatch):
    nothing = parsed(["e"], monkeypatch)
    assert (nothing["slots"], nothing["grace_seconds"], nothing["storage"]) == (None, None, None)
    variables = {"HPO_SLOTS": "4", "HPO_GRACE_SECONDS": "9", "HPO_STORAGE": "postgresql://a/b", "HPO_DATA": "there"}
    told = parsed(["e"], monkeypatch, **variables)
    assert (told["slots"], told["grace_seconds"], told["storage"]) == (4, 9.0, "postgresql://a/b")
    assert told["data_dir"] == Path("there")
    given = parsed(["e", "--slots", "2", "--data-dir", "here"], monkeypatch, **variables)
    assert (given["slots"], given["grace_seconds"], given["data_dir"]) == (2, 9.0, Path("here"))
