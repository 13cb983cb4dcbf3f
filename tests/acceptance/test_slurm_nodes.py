"""The slurm launcher where the cluster is not as one would wish: a quota, nodes whose clocks are wrong."""

import json
import os
import time
from dataclasses import replace

import pytest

from .slurm_cluster import is_installed
from .test_slurm import LIMIT_SECONDS, Slurm, Study, nothing_is_left, slurm  # noqa: F401  (fixtures)

pytestmark = pytest.mark.skipif(not is_installed(), reason="needs root and Debian's slurm-wlm and munge")


SHIFTED = """
import os, time

place = os.environ.get("SLURM_ARRAY_TASK_ID")
if place is not None:
    offset, real = (3600 if int(place) % 2 else -3600), time.time_ns
    time.time_ns = lambda: real() + offset * 10**9
    time.time = lambda: time.time_ns() / 1e9
"""
"""The clock of a worker's node, an hour before or behind that of the launcher and the database."""


@pytest.mark.release
def test_a_quota_that_lets_one_job_run(slurm: Slurm, study: Study) -> None:  # noqa: F811
    """The other waits, the launch says for what, and what runs ends the experiment."""
    file = study(name="quota", samplers='["random"]', budget="trials = 3", epochs=6, seconds=0.3)
    output, _ = (launcher := slurm.launch(file, "--workers", "2", "--sbatch", "--licenses=token:1")).communicate(
        timeout=LIMIT_SECONDS
    )
    assert launcher.returncode == 0, output
    assert "1 pending (Licenses), 1 running" in output
    slurm.assert_exact("quota", 3)
    assert slurm.jobs() == []


@pytest.mark.release
def test_clocks_an_hour_apart(slurm: Slurm, study: Study) -> None:  # noqa: F811
    """Who is silent, and when a trial began, is a matter of the database's clock."""
    shifted = slurm.folder / "shifted"
    shifted.mkdir()
    (shifted / "sitecustomize.py").write_text(SHIFTED)
    path = f"{shifted}{os.pathsep}{slurm.environment['PYTHONPATH']}"
    slurm = replace(slurm, environment=slurm.environment | {"PYTHONPATH": path})
    logged = slurm.epochs()
    file = study(name="clocks", samplers='["random"]', budget="trials = 4", epochs=10, seconds=0.4)
    began = time.time()
    output, _ = (launcher := slurm.launch(file, "--workers", "2")).communicate(timeout=LIMIT_SECONDS)
    assert launcher.returncode == 0, output
    slurm.assert_exact("clocks", 4)
    assert not any(row.retried for row in slurm.trials("clocks"))
    notes = [json.loads(line) for line in slurm.log.read_text().splitlines()[logged:]]
    assert len(notes) == 40
    assert {round((note["started"] - began) / 3600) for note in notes} == {-1, 1}
