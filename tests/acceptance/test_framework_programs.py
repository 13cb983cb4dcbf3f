"""Lightning and Hugging Face scripts as programs: a killed worker's trial goes on from its checkpoint."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpo.trainers.process_guard import _environments

from .conftest import REPOSITORY, Hpo


def programs(home: Path) -> list[int]:
    """The scripts that run as trials below a home."""
    mark = f"HPO_FOLDER={home}".encode()
    return [pid for pid, entries in _environments() if any(entry.startswith(mark) for entry in entries)]


def worker_of(program: int) -> int:
    return int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("module", "example", "checkpoint", "epochs"),
    [
        ("lightning", "lightning_program", "hpo-last.ckpt", 60),
        ("transformers", "hugging_face_program", "checkpoint-*/trainer_state.json", 30),
    ],
)
def test_a_killed_worker(
    hpo_command: Hpo,
    environment: dict[str, str],
    tmp_path: Path,
    module: str,
    example: str,
    checkpoint: str,
    epochs: int,
) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed: pip install 'hpo-service[frameworks]'")
    shutil.copy(REPOSITORY / "examples" / example / "train.py", tmp_path)
    text = (REPOSITORY / "examples" / example / "study.toml").read_text()
    text = re.sub(r"^epochs = .*", f"epochs = {epochs}", text, flags=re.MULTILINE)
    text = re.sub(r"trials = \d+", "trials = 2", text).replace('pruner = "median"', 'pruner = "none"')
    (tmp_path / "study.toml").write_text(text)
    name = re.search(r'name = "(.*)"', text)[1]  # type: ignore[index]
    home = tmp_path / "home"
    launch = subprocess.Popen(
        [sys.executable, "-m", "hpo", "launch", "study.toml", "--workers", "1"],
        env={**environment, "HPO_TRAINERS": "", "HPO_HEARTBEAT_SECONDS": "0.5"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        # Snapshots of how far a program has come are a second apart, so some epochs after its first checkpoint.
        while not list(home.glob(f"checkpoints/*/trials/*/checkpoints/{checkpoint}")):
            assert time.monotonic() < deadline
            assert launch.poll() is None
            time.sleep(0.05)
        (program, *_) = programs(home)
        os.kill(worker_of(program), signal.SIGKILL)
        output, _ = launch.communicate(timeout=240)
    finally:
        launch.kill()
        launch.wait()
    (study,) = json.loads(hpo_command("status", name, "--json").stdout)["studies"]
    assert study["states"]["complete"] == 2, output
    logs = [hpo_command("logs", name, str(trial)).stdout for trial in range(3)]
    assert "attempt 1" in "".join(logs), output
    print("\n".join(logs))
    trials = study["states"]
    assert programs(home) == [], trials
