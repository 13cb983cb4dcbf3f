"""Folders and files that users have beside their trainer, with names that the product uses too.

Each arrangement goes through every way to start the product, from a built wheel and from a development install.
"""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import REPOSITORY

TRAINER = """
from collections.abc import Iterator

import hpo

{imports}


class Config(hpo.Config):
    x: float = 0.5
    epochs: int = 2


@hpo.trainer("mine", metrics={{"loss": "minimize"}})
def mine(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    {check}
    for epoch in range(config.epochs):
        yield {{"loss": config.x / (epoch + 1)}}
"""
STUDY = """
name = "{name}"
trainer = "mine"
metric = "loss"
samplers = ["random"]
budget = {{ trials = 2 }}
[space]
x = {{ low = 0.0, high = 1.0 }}
"""
DIGITS = """
name = "digits"
trainer = "classifier"
metric = "val_loss"
samplers = ["random"]
budget = { trials = 1 }
slots = 1
[fixed]
dataset = "digits"
network = "mlp"
width_1 = 8
width_2 = 4
epochs = 1
[space]
lr = { low = 0.01, high = 0.1 }
"""
MARK = "MARK = 'the user’s own'\n"
IMPORTED = "import {0}\n\nassert {0}.MARK == 'the user’s own'"

Files = dict[str, str]


def own(module: str | None = None) -> str:
    """The user's trainer, which imports a module of his that is called so."""
    if module is None:
        return TRAINER.format(imports="", check="pass")
    return TRAINER.format(imports=IMPORTED.format(module), check=f"import {module} as own; assert own.MARK")


ARRANGEMENTS: dict[str, tuple[str, Files]] = {
    # name: (what --trainers gets, files)
    "trainers.py, imported": ("my_trainer", {"my_trainer.py": own("trainers"), "trainers.py": MARK}),
    "trainers.py is the trainer": ("trainers", {"trainers.py": own()}),
    "trainers.py by its path": ("./trainers.py", {"trainers.py": own()}),
    "package trainers, not imported": ("my_trainer", {"my_trainer.py": own(), "trainers/__init__.py": MARK}),
    "package trainers, imported": ("my_trainer", {"my_trainer.py": own("trainers"), "trainers/__init__.py": MARK}),
    "package trainers holds the trainer": (
        "trainers.my_trainer",
        {"trainers/__init__.py": MARK, "trainers/my_trainer.py": own("trainers")},
    ),
    "folder trainers holds the trainer": (
        "trainers.my_trainer",
        {"trainers/my_trainer.py": own("trainers.base"), "trainers/base.py": MARK},
    ),
    "folder trainers, imported": ("my_trainer", {"my_trainer.py": own("trainers.base"), "trainers/base.py": MARK}),
    "config.py, data.py, studies, benchmarks, tests": (
        "my_trainer",
        {
            "my_trainer.py": own("config"),
            "config.py": "import data, studies, benchmarks\n" + MARK,
            "data.py": MARK,
            "studies/__init__.py": MARK,
            "benchmarks/__init__.py": MARK,
            "tests/__init__.py": MARK,
        },
    ),
}
FEW = (
    "trainers.py, imported",
    "folder trainers holds the trainer",
    "config.py, data.py, studies, benchmarks, tests",
)

INSTALLS = ("wheel", "development")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _installed(folder: Path, *what: str) -> Path:
    """A virtual environment with the product and everything that this one has, but not this one's own install."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*")) / "site-packages"
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", *what]
    subprocess.run([*command, "--disable-pip-version-check", "--force-reinstall"], check=True)
    return folder / "bin"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the product from a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(REPOSITORY)], check=True)
    return _installed(folder / "venv", str(next(folder.glob("*.whl"))))


@pytest.fixture(scope="session")
def development(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the product as ``pip install -e`` makes it."""
    return _installed(tmp_path_factory.mktemp("development") / "venv", "--editable", str(REPOSITORY))


@pytest.fixture(params=INSTALLS)
def run(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Run:
    programs: Path = request.getfixturevalue(request.param)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run_program(name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(programs / name), *arguments],
            cwd=tmp_path,
            env={**kept, "HPO_HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run_program


def arrange(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for name in ("one", "two", "three", "four"):
        (folder / f"{name}.toml").write_text(STUDY.format(name=name))
    (folder / "digits.toml").write_text(DIGITS)


def right(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (install, name)
        if name in (FEW if install == "wheel" else FEW[:1])
        else pytest.param(install, name, marks=pytest.mark.release)
        for install in INSTALLS
        for name in ARRANGEMENTS
    ],
    indirect=["run"],
)
def test_every_way_to_start(name: str, run: Run, tmp_path: Path) -> None:
    """``make test`` takes FEW from a wheel and the first of them as developed, ``make test-all`` all arrangements."""
    trainers, files = ARRANGEMENTS[name]
    arrange(tmp_path, files)
    right(run("hpo", "launch", "one.toml", "--trainers", trainers, "--workers", "1"))
    right(run("hpo", "export", "one", "--output", "best.toml"))
    right(run("hpo", "train", "best.toml", "--trainers", trainers))
    right(run("hpo", "launch", "two.toml", "--trainers", trainers, "--launcher", "inline"))
    right(run("hpo", "worker", "two", "--trainers", trainers))
    call = "import hpo; hpo.launch({!r}, workers=1)"
    (tmp_path / "search.py").write_text(
        "import hpo\n\nif __name__ == '__main__':\n    hpo.launch('three.toml', workers=1)\n"
    )
    right(run("python", "search.py", HPO_TRAINERS=trainers))
    right(run("python", "-c", call.format("four.toml"), HPO_TRAINERS=trainers))


@pytest.mark.parametrize("name", FEW[:1])
def test_the_classifier_beside_them(name: str, run: Run, tmp_path: Path) -> None:
    arrange(tmp_path, ARRANGEMENTS[name][1])
    right(run("hpo", "launch", "digits.toml", "--workers", "1"))


def test_the_users_own_trainers_is_what_he_imports(run: Run, tmp_path: Path) -> None:
    arrange(tmp_path, {"trainers/__init__.py": MARK})
    right(run("python", "-c", "import hpo, hpo.trainers.protocol, trainers; assert trainers.MARK"))


def test_no_module_called_trainers_is_installed(run: Run) -> None:
    done = run("python", "-c", "import hpo, importlib.util as u; assert u.find_spec('trainers') is None")
    right(done)


def test_a_script_called_hpo(run: Run, tmp_path: Path) -> None:
    """It cannot import the product, because Python takes the script itself; the commands beside it work."""
    arrange(tmp_path, {"my_trainer.py": own(), "hpo.py": "import hpo\n\nhpo.launch('one.toml')\n"})
    done = run("python", "hpo.py", HPO_TRAINERS="my_trainer")
    assert done.returncode != 0
    right(run("hpo", "launch", "one.toml", "--trainers", "my_trainer", "--workers", "1"))
    right(run("hpo", "launch", "two.toml", "--trainers", "my_trainer", "--launcher", "inline"))
