"""``make demo``: a study file from launch to a reproduced result, with the commands that a person would type."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from hpo.launchers.progress import format_seconds

STUDY = "studies/digits_mlp.toml"
OUTPUT = Path("best-digits.toml")


def run(*arguments: str) -> None:
    """Shows an ``hpo`` command and runs it; ends with its exit code where it fails."""
    print(f"\n$ hpo {shlex.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "hpo", *arguments])
    if done.returncode:
        raise SystemExit(done.returncode)


def main() -> None:
    started = time.monotonic()
    run("launch", STUDY, "--workers", "2", "--gpus", "none")
    run("export", "digits-mlp", "--output", str(OUTPUT))
    run("train", str(OUTPUT))
    print(f"\nThat took {format_seconds(time.monotonic() - started)}. The best configuration is in {OUTPUT}.")
    print("Compare the samplers:  .venv/bin/hpo compare digits-mlp")
    print("Open the dashboard:    .venv/bin/hpo dashboard")


if __name__ == "__main__":
    main()
