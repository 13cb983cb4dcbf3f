"""Trials of two processes each (torchrun, gloo on the CPU) in two workers; a rank or a worker is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpo.trainers.process_guard import _environments

from .conftest import Hpo

pytest.importorskip("torch")

TRAIN = """
import os, sys, time
import torch
import torch.distributed as dist
import hpo

dist.init_process_group("gloo")
rank, path = dist.get_rank(), os.path.join(os.environ["HPO_CHECKPOINT_DIR"], "epoch")
start = int(open(path).read()) if os.path.exists(path) else 0
for epoch in range(start + 1, 9):
    total = torch.tensor([float(rank + 1)])
    dist.all_reduce(total)
    time.sleep(0.2)
    if rank == 0:
        with open(path + ".new", "w") as file:
            file.write(str(epoch))
        os.replace(path + ".new", path)
    hpo.report(loss=float(sys.argv[1]) + total.item() / epoch, epoch=epoch)
dist.destroy_process_group()
"""
STUDY = """
name = "ranks"
trainer = "program"
command = "{python} -m torch.distributed.run --nproc-per-node={num_gpus} ranks.py {lr}"
metric = "loss"
samplers = ["random"]
budget = { trials = 4 }
gpus_per_trial = {gpus}
stop_grace_seconds = 2
[space]
lr = { low = 0.1, high = 1.0 }
"""


def processes_below(home: Path) -> dict[int, str]:
    """The processes of trials by their rank: ``"0"``, ``"1"``, or empty for the program that has started them."""
    mark, found = f"HPO_FOLDER={home}".encode(), {}
    for pid, entries in _environments():
        if any(entry.startswith(mark) for entry in entries):
            ranks = [entry.partition(b"=")[2].decode() for entry in entries if entry.startswith(b"RANK=")]
            found[pid] = ranks[0] if ranks else ""
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("victim", [pytest.param("rank", marks=pytest.mark.release), "worker"])
def test_killed(victim: str, hpo_command: Hpo, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(TRAIN)
    in_file = victim == "rank"  # else the option goes before the file
    (tmp_path / "ranks.toml").write_text(STUDY.replace("{gpus}", "2" if in_file else "1"))
    home = tmp_path / "home"
    given = [] if in_file else ["--gpus-per-trial", "2"]
    launch = subprocess.Popen(
        [sys.executable, "-m", "hpo", "launch", "ranks.toml", "--workers", "2", *given],
        env={**environment, "HPO_TRAINERS": "", "HPO_HEARTBEAT_SECONDS": "0.5"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        # Two trials train at once, each with both of its ranks.
        while len(list(home.glob("checkpoints/*/trials/*/checkpoints/epoch"))) < 2:
            assert time.monotonic() < deadline
            assert launch.poll() is None
            time.sleep(0.02)
        before = processes_below(home)
        ranks = [pid for pid, rank in before.items() if rank == "1"]
        assert len(ranks) == 2, before
        (program,) = (pid for pid in before if pid == parent(ranks[0]))
        of_trial = {pid for pid, rank in before.items() if pid == program or (rank and parent(pid) == program)}
        assert len(of_trial) == 3, before
        os.kill(ranks[0] if victim == "rank" else parent(program), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while of_trial & set(processes_below(home)):
            assert time.monotonic() < deadline, "ranks of the trial outlive it"
            time.sleep(0.05)
        output, _ = launch.communicate(timeout=200)
    finally:
        launch.kill()
        launch.wait()
    (study,) = json.loads(hpo_command("status", "ranks", "--json", HPO_TRAINERS="").stdout)["studies"]
    states = {state: count for state, count in study["states"].items() if count}
    assert states == {"complete": 4}, output
    assert processes_below(home) == {}
    assert study["best"]["value"] == pytest.approx(study["best"]["config"]["lr"] + 3 / 8)
    # Every trial trained to its end, and one was begun twice. How far a program has come is recorded once a second, so
    # that the curve of the interrupted one may lack the epochs between that record and the program's own checkpoint.
    assert 3 * 8 + 2 <= study["epochs"] <= 4 * 8, output
    begun = [hpo_command("logs", "ranks", str(trial), HPO_TRAINERS="") for trial in range(5)]
    assert sum("attempt 1:" in log.stdout for log in begun) == 1, output
