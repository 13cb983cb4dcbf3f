"""Functions on their way to worker processes."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.trainers.errors import TrainerError
from hpo.trainers.functions import SUFFIX, load_function, register_function, spec_for_workers
from hpo.trainers.registry import TRAINERS


@pytest.fixture(autouse=True)
def table() -> Iterator[None]:
    before = dict(TRAINERS)
    yield
    TRAINERS.clear()
    TRAINERS.update(before)


def at_module_level(trial: Any) -> float:
    return 1.0


def test_a_function_of_a_module_is_named(tmp_path: Path) -> None:
    entry = register_function(at_module_level)
    assert entry.name == f"{__name__}:at_module_level"
    assert spec_for_workers(entry, tmp_path / "functions") == entry.name
    assert not (tmp_path / "functions").exists()


def test_a_local_function_is_pickled_for_its_owner_alone(tmp_path: Path) -> None:
    offset = 2.0
    entry = register_function(lambda trial: offset)
    assert entry.name == f"{__name__}:objective"
    path = Path(spec_for_workers(entry, tmp_path / "functions") or "")
    assert path.suffix == SUFFIX
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert load_function(path).name == entry.name
    path.chmod(0o622)
    with pytest.raises(TrainerError, match="is not the file that a launch of this user wrote"):
        load_function(path)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(TrainerError, match="is not the file that a launch of this user wrote"):
        load_function(path)
    with pytest.raises(TrainerError, match="there is no function"):
        load_function(tmp_path / f"absent{SUFFIX}")


def test_what_cannot_be_pickled_says_what_to_do(tmp_path: Path) -> None:
    lock = threading.Lock()
    entry = register_function(lambda trial: float(lock.locked()))
    with pytest.raises(TrainerError, match=r"cannot be handed to worker processes .* launcher='inline'"):
        spec_for_workers(entry, tmp_path)
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import dataclasses
import hpo
from hpo.trainers.functions import register_function, spec_for_workers
from pathlib import Path

FACTOR = 3

class Config(hpo.Config):
    lr: float = 0.5
    rounds: int = 2

@dataclasses.dataclass
class Plain:
    lr: float = 0.5

@hpo.trainer("model", metrics={"loss": "minimize"}, max_epochs="rounds")
def model(config: "Config", run: hpo.Run):
    for _ in range(config.rounds):
        yield {"loss": FACTOR * config.lr}

@hpo.trainer("plain")
def plain(config: Plain, run: hpo.Run):
    yield {"loss": FACTOR * config.lr}

def objective(trial):
    return FACTOR * trial.suggest_float("lr", 0, 1)

for function in (model, plain, objective):
    print(spec_for_workers(register_function(function), Path("functions")))
"""

READER = """
import sys
from hpo.trainers.loading import load_trainers
from hpo.trainers.protocol import BuildOptions, Run
from hpo.trainers.registry import TRAINERS

load_trainers(",".join(sys.argv[1:]))
for name in ("model", "plain", "script:objective"):
    entry = TRAINERS[name]
    trainer = entry.build(BuildOptions())
    trainer.start(0, {"lr": 0.5} if entry.config is None else entry.config(lr=0.5), Run())
    print(name, entry.max_epochs, [event.metrics for event in trainer.advance()])
"""


def test_functions_of_the_running_script_work_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def run(*command: str, folder: Path) -> list[str]:
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    paths = run("script.py", folder=tmp_path)
    assert len(paths) == 3
    (tmp_path / "script.py").unlink()
    (tmp_path / "elsewhere").mkdir()
    assert run("-c", READER, *(str(tmp_path / path) for path in paths), folder=tmp_path / "elsewhere") == [
        "model rounds [{'loss': 1.5}]",
        "plain None [{'loss': 1.5}]",
        "script:objective None [{'value': 1.5}]",
    ]
