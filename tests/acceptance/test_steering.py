"""A launch that a person steers from another terminal."""

import json
import re
import subprocess
import sys
import time

import pytest

SECONDS = 60.0


def until(look, *, seconds=SECONDS):
    """What ``look`` returns once it is true."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := look():
            return found
        time.sleep(0.3)
    raise AssertionError(f"never true within {seconds:g} s")


@pytest.mark.release
def test_a_launch_is_paused_resumed_pruned_extended_and_stopped(hpo_command, study, environment, tmp_path) -> None:
    path = study("sleepy", '["random"]', "trials = 20", epochs=30, seconds=0.3)
    command = [sys.executable, "-m", "hpo", "launch", str(path), "--workers", "1", "--heartbeat-seconds", "0.5"]
    launch = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    def workers():
        ended = hpo_command("workers", "sleepy", "--json")
        return json.loads(ended.stdout)["workers"] if ended.returncode == 0 else []

    def trains():
        return [w for w in workers() if w["alive"] and w["state"] == "trains" and any(t["epoch"] for t in w["trials"])]

    try:
        (first,) = until(trains)
        trial = str(first["trials"][0]["trial"])
        assert "random/0, trial" in hpo_command("workers", "sleepy").stdout
        refused = hpo_command("stop", "sleepy")  # nobody answers the question
        assert refused.returncode == 1
        assert hpo_command("pause", "sleepy", "--yes").returncode == 0
        (waiting,) = until(lambda: [w for w in workers() if w["alive"] and w["state"] == "paused"])
        assert waiting["worker"] != first["worker"]
        assert hpo_command("resume", "sleepy", "--yes").returncode == 0
        (second,) = until(trains)
        trial = str(second["trials"][0]["trial"])
        assert hpo_command("prune", "sleepy", trial, "--yes").returncode == 0
        until(lambda: "pruned by" in hpo_command("show", "sleepy", trial).stdout)
        assert "trials 20 to 25" in hpo_command("extend", "sleepy", "--trials", "+5", "--yes").stdout
        assert hpo_command("enqueue", "sleepy", "lr=0.5", "--yes").returncode == 0
        assert "expected a number" in hpo_command("enqueue", "sleepy", "lr=7", "--yes").stderr
        assert "==>" in hpo_command("logs", "sleepy").stdout
        assert hpo_command("stop", "sleepy", "--yes").returncode == 0
        _, errors = launch.communicate(timeout=SECONDS)
    finally:
        launch.kill()
    assert launch.returncode == 1
    assert re.search(r"sleepy was stopped by \S+ at .*; what was done is kept", errors)
    assert "error:" not in errors
    assert "Traceback" not in errors
    assert not [w for w in workers() if w["alive"]]
