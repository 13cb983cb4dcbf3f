"""A user's modules are loaded from their files, whatever else is called so. Each case runs in a process of its own."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

MINE = """
from collections.abc import Iterator
import hpo
{imports}

class Config(hpo.Config):
    x: float = 0.0

@hpo.trainer("{name}")
def train(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    yield {{"loss": config.x}}
"""


def mine(name: str = "mine", imports: str = "") -> str:
    return MINE.format(name=name, imports=imports)


def run(folder: Path, files: dict[str, str], code: str) -> "subprocess.CompletedProcess[str]":
    """Runs ``code`` in ``folder`` as a worker is started there: the folder is not first on the path."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    header = "import sys\nfrom hpo.trainers.loading import load_trainers\nfrom hpo.trainers.registry import TRAINERS\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", header + textwrap.dedent(code)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("named", ["{0}", "./{0}.py"])
@pytest.mark.parametrize(
    "name", ["trainers", "optuna", "statistics", "pydantic", "json", "benchmarks", "config", "torch"]
)
def test_a_name_that_is_taken(name: str, named: str, tmp_path: Path):
    """By a loaded module, by one that is not loaded yet, by the standard library, by nobody."""
    code = f"""
    import json, importlib
    load_trainers({named.format(name)!r})
    load_trainers({named.format(name)!r})
    assert TRAINERS["mine"].build is not None
    import statistics, optuna
    assert json.dumps({{}}) == "{{}}" and statistics.mean([1, 2]) == 1.5 and optuna.create_study
    print(TRAINERS["mine"].source_module)
    """
    done = run(tmp_path, {f"{name}.py": mine()}, code)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip() == name) == (name in ("config",)), done.stdout


def test_a_package_whose_name_is_taken(tmp_path: Path):
    files = {
        "benchmarks/__init__.py": "MARK = 1\n",
        "benchmarks/base.py": "MARK = 2\n",
        "benchmarks/mine.py": mine(imports="from . import MARK, base\nassert (MARK, base.MARK) == (1, 2)"),
    }
    done = run(tmp_path, files, "import benchmarks\nload_trainers('benchmarks.mine')\nassert 'mine' in TRAINERS")
    assert done.returncode == 0, done.stderr


def test_a_folder_without_init(tmp_path: Path):
    files = {"models/mine.py": mine(imports="import models.base\nfrom .base import MARK"), "models/base.py": "MARK = 1"}
    done = run(tmp_path, files, "load_trainers('models.mine')\nassert 'mine' in TRAINERS")
    assert done.returncode == 0, done.stderr


def test_what_a_users_file_imports_is_his_own(tmp_path: Path):
    """What lies beside it comes before what is installed, but for data folders and the standard library."""
    imports = "import config, data, utils, benchmarks, json, wandb\n" + "\n".join(
        f"assert {name}.MARK == {name!r}" for name in ("config", "data", "utils", "benchmarks", "wandb")
    )
    files = {f"user/{name}.py": f"MARK = {name!r}\n" for name in ("config", "data", "utils", "benchmarks")}
    files |= {"user/json.py": "1 / 0", "user/wandb/run-1/log.txt": "", "installed/wandb.py": "MARK = 'wandb'\n"}
    files["user/mine.py"] = mine(imports=imports + "\nassert json.dumps")
    code = """
    sys.path.insert(0, "installed")
    load_trainers("user/mine.py")
    assert "mine" in TRAINERS
    """
    done = run(tmp_path, files, code)
    assert done.returncode == 0, done.stderr


def test_what_a_library_imports_is_not_the_users(tmp_path: Path):
    files = {
        "mine.py": mine(),
        "config.py": "1 / 0",
        "installed/library.py": "import config\n",
        "installed/config.py": "",
    }
    code = """
    sys.path.insert(0, "installed")
    load_trainers("mine")
    import library
    """
    done = run(tmp_path, files, code)
    assert done.returncode == 0, done.stderr
    assert run(tmp_path, {}, "load_trainers('mine')\nassert sys.path[-1] == __import__('os').getcwd()").returncode == 0


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("my_trianer", "there is none in {0}, nor is one installed; did you mean 'my_trainer'?"),
        ("models.mien", "did you mean 'models.mine'?"),
        ("./my_trianer.py", "there is no trainer module at {0}/my_trianer.py (did you mean 'my_trainer.py'?)"),
        ("nothing_like_it", "there is none in {0}, nor is one installed\n"),
        ("needs", "the trainer module 'needs' cannot be imported: ModuleNotFoundError: No module named 'absent'"),
        ("hpo.py", "{0}/hpo.py has the name of this package"),
        ("hpo", "{0}/hpo.py has the name of this package"),
    ],
)
def test_what_cannot_be_found(named: str, expected: str, tmp_path: Path):
    files = {"my_trainer.py": mine(), "models/__init__.py": "", "models/mine.py": "", "needs.py": "import absent"}
    files["hpo.py"] = "import hpo\n"
    code = f"""
    from hpo.trainers.errors import TrainerError
    try:
        load_trainers({named!r})
    except TrainerError as error:
        print(error)
    """
    done = run(tmp_path, files, code)
    assert expected.format(tmp_path) in done.stdout, done.stdout + done.stderr


def test_a_script_and_its_import_are_one_place(tmp_path: Path):
    """A script that defines a trainer and launches itself by its file's name."""
    script = mine(imports="import sys\nfrom hpo.trainers.loading import load_trainers\n") + (
        "if __name__ == '__main__':\n    load_trainers('script.py')\n    print('right')\n"
    )
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "right\n", done.stderr
