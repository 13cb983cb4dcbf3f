"""From `hpo launch --launcher slurm` to the start of the first epoch, above what `srun true` takes; medians of 5 pairs.

On the Slurm of the tests (Debian's, one node, as root), with a database that runs already.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.postgres_server import PostgresServer
from benchmarks.sleeping import SPACE
from hpo.database.storage import open_storage
from tests.acceptance.slurm_cluster import is_installed, running_slurm

REPOSITORY = Path(__file__).parents[1]
STUDY = """
name = "start-{number}"
trainer = "sleeping"
metric = "value"
samplers = ["random"]
budget = {{ trials = 1 }}
[fixed]
epochs = 1
"""
LIMIT_SECONDS = 120.0


def srun_seconds(environment: dict[str, str]) -> float:
    """How long Slurm takes to run a program that does nothing."""
    started = time.monotonic()
    subprocess.run(["srun", "--quiet", "true"], env=environment, check=True, timeout=LIMIT_SECONDS)
    return time.monotonic() - started


def launch_seconds(environment: dict[str, str], folder: Path, number: int) -> float:
    """Seconds from the command to the start of the first epoch in a worker that Slurm has started."""
    file, log = folder / f"start-{number}.toml", folder / f"epochs-{number}"
    file.write_text(STUDY.format(number=number) + SPACE)
    command = [sys.executable, "-m", "hpo", "launch", str(file), "--launcher", "slurm", "--workers", "1"]
    started = time.time()
    subprocess.run(
        [*command, "--gpus", "none"],
        env=environment | {"SLEEPING_LOG": str(log)},
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=LIMIT_SECONDS,
    )
    first: float = min(json.loads(line)["started"] for line in log.read_text().splitlines())
    return first - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    if not is_installed():
        raise SystemExit("needs root and Debian's slurm-wlm and munge")
    # Paths of sockets hold at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hpo-slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HPO_", "SLURM_"))}
        with running_slurm(folder / "slurm") as configuration, PostgresServer(folder / "postgres") as server:
            environment = kept | {
                "SLURM_CONF": str(configuration),
                "HPO_STORAGE": server.address,
                "HPO_HOME": str(folder / "home"),
                "HPO_TRAINERS": "benchmarks.sleeping",
                "PYTHONPATH": str(REPOSITORY),
            }
            open_storage(server.address).engine.dispose()
            pairs = []
            for number in range(options.pairs):
                alone = srun_seconds(environment)
                pairs.append((alone, launch_seconds(environment, folder, number)))
                print(f"srun true {alone:6.2f} s   to the first epoch {pairs[-1][1]:6.2f} s", flush=True)
    above = [launched - alone for alone, launched in pairs]
    print(f"above srun true: {statistics.median(above):.2f} s ({min(above):.2f} to {max(above):.2f})")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
