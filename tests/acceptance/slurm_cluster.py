"""A real Slurm of one node in a folder: as root, without systemd, on the loopback alone, on ports of its own.

It claims more processors than the machine has and four made-up GPUs. Jobs in the partition ``high`` preempt those in
``low``, those in ``short`` may last two minutes, and one job at a time may hold the licence ``token``. Needs Debian's
packages ``slurm-wlm`` and ``munge``.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.postgres_server import free_port

CONFIGURATION = """
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=5
OverTimeLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,batch_sched_delay=0
GresTypes=gpu
EnforcePartLimits=ALL
Licenses=token:1
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=4000 Gres=gpu:4 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=6
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=2 State=UP PriorityTier=1 GraceTime=6
"""


def is_installed() -> bool:
    """Whether Slurm can be started here."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch"))


@contextlib.contextmanager
def running_slurm(folder: Path) -> Iterator[Path]:
    """Starts Slurm in ``folder`` and yields its configuration file; ends it afterwards."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool", "dev"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    for number in range(4):
        subprocess.run(["mknod", str(folder / "dev" / f"nvidia{number}"), "c", "1", "3"], check=True)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=host, folder=folder, ctld_port=free_port(), slurmd_port=free_port())
    )
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/dev/nvidia[0-3]\n")
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    munge = ["key-file", "socket", "pid-file", "log-file", "seed-file"]
    paths = [f"--{name}={folder}/munge{'d' if name == 'pid-file' else ''}.{name.partition('-')[0]}" for name in munge]
    subprocess.run(["munged", "--force", *paths], check=True, env=environment)
    try:
        subprocess.run(["slurmctld", "-c"], check=True, env=environment)
        subprocess.run(["slurmd"], check=True, env=environment)
        wait_until_idle(environment)
        yield configuration
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                process = psutil.Process(int((folder / f"{name}.pid").read_text()))
                process.terminate()
                process.wait(20)


def wait_until_idle(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while True:
        shown = subprocess.run(
            ["sinfo", "-h", "-o", "%T", "-p", "low"], env=environment, capture_output=True, text=True
        )
        if shown.stdout.strip() == "idle":
            return
        assert time.monotonic() < deadline, shown.stdout + shown.stderr
        time.sleep(0.1)
