"""What to apply for the workers of an experiment where no launcher of ours starts them: Kubernetes, Slurm, compose.

Texts, not objects: a person reads and edits them, and no library for YAML is wanted for that. Every value is written as
JSON, which is YAML too. No password is written: where one is needed there is a place for it.
"""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from hpo.errors import UsageError
from hpo.launchers.registry import too_few_gpus
from hpo.launchers.slurm_commands import SIGNAL_SECONDS


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What is to run.

    Attributes:
        image: container image with this package.
        gpus_per_worker: 0 for the CPU.
        gpus_per_trial: what the study file or the launch gives a trial; a worker needs as many.
        cpus_per_worker: cores of each worker.
        memory_gb: memory of each worker.
        termination_seconds: time between the wish to end and the kill; longer than an epoch, so that the epoch that
            runs is not lost.
        checkpoint_dir: fsspec address of checkpoints and artifacts; None for a shared volume.
        trainers: modules with a user's own trainers, separated by commas.
    """

    experiment: str
    workers: int
    image: str
    gpus_per_worker: int
    cpus_per_worker: int
    memory_gb: int
    termination_seconds: int
    checkpoint_dir: str | None = None
    trainers: str = ""
    gpus_per_trial: int = 1

    @property
    def label(self) -> str:
        """The experiment's name as Kubernetes' names are: at most 50 of a-z, 0-9 and -."""
        return f"hpo-{re.sub(r'[^a-z0-9]+', '-', self.experiment.lower()).strip('-')[:46].strip('-') or 'experiment'}"

    @property
    def command(self) -> list[str]:
        return ["worker", *(["--"] if self.experiment.startswith("-") else []), self.experiment]


def kubernetes(workers: Workers) -> str:
    """A Secret, a PersistentVolumeClaim unless checkpoints go to an object store, and an indexed Job."""
    name = workers.label
    shared = workers.checkpoint_dir is None
    claim = f"""---
# Checkpoints and artifacts: every worker must reach them, so that a trial goes on where another had it.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {name}
spec:
  accessModes: ["ReadWriteMany"]
  resources:
    requests:
      storage: 20Gi
"""
    address = workers.checkpoint_dir or "/shared/checkpoints"
    mount = (
        """
            - name: shared
              mountPath: /shared"""
        * shared
    )
    volume = (
        f"""
        - name: shared
          persistentVolumeClaim:
            claimName: {name}"""
        * shared
    )
    gpu = f"\n              nvidia.com/gpu: {workers.gpus_per_worker}" * (workers.gpus_per_worker > 0)
    status = ["hpo", "status", *workers.command[1:]]
    return f"""# kubectl apply -f FILE, once the experiment is made: hpo launch STUDY_FILE with the same database.
apiVersion: v1
kind: Secret
metadata:
  name: {name}
type: Opaque
stringData:
  # The database that all workers reach; its password stands alone, so that any character may be in it.
  HPO_STORAGE: "postgresql://hpo@postgres:5432/hpo"
  PGPASSWORD: "PUT THE PASSWORD HERE"
{claim if shared else ""}---
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
spec:
  completionMode: Indexed
  completions: {workers.workers}
  parallelism: {workers.workers}
  # A worker that fails for itself is started again ten times; one whose pod is taken away costs none of them.
  backoffLimitPerIndex: 10
  maxFailedIndexes: {workers.workers}
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions:
          - type: DisruptionTarget
            status: "True"
      # 130: a signal asked it to end; 75: it asked to be replaced.
      - action: Ignore
        onExitCodes:
          operator: In
          values: [75, 130]
  template:
    metadata:
      labels:
        app: {name}
    spec:
      restartPolicy: Never
      # Longer than an epoch: within it a worker gives its trial back with a checkpoint.
      terminationGracePeriodSeconds: {workers.termination_seconds}
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        fsGroup: 1000
      containers:
        - name: worker
          image: {json.dumps(workers.image)}
          command: ["hpo"]
          args: {json.dumps(workers.command)}
          envFrom:
            - secretRef:
                name: {name}
          env:
            - name: HPO_CHECKPOINT_DIR
              value: {json.dumps(address)}
            - name: HPO_TRAINERS
              value: {json.dumps(workers.trainers)}
            - name: HPO_HOME
              value: /home/hpo/state
          resources:
            requests:
              cpu: {workers.cpus_per_worker}
              memory: {workers.memory_gb}Gi
            limits:
              cpu: {workers.cpus_per_worker}
              memory: {workers.memory_gb}Gi{gpu}
          # The database answers and has the experiment. After that a database that goes away is waited for, and an
          # epoch that hangs ends the worker by itself: a probe of ours would only kill workers that wait.
          startupProbe:
            exec:
              command: {json.dumps(status)}
            periodSeconds: 10
            timeoutSeconds: 60
            failureThreshold: 30
          volumeMounts:
            - name: state
              mountPath: /home/hpo/state
            - name: memory
              mountPath: /dev/shm{mount}
      volumes:
        - name: state
          emptyDir: {{}}
        # Data loaders share tensors here; the default is 64 MB.
        - name: memory
          emptyDir:
            medium: Memory{volume}
"""


def slurm(workers: Workers) -> str:
    """A script for ``sbatch``; ``hpo launch --launcher slurm`` submits and watches the same."""
    gpus = f"#SBATCH --gres=gpu:{workers.gpus_per_worker}\n" * (workers.gpus_per_worker > 0)
    # Slurm reads its lines up to the first command, and % has a meaning in the name of a log.
    variables = {"HPO_CHECKPOINT_DIR": workers.checkpoint_dir, "HPO_TRAINERS": workers.trainers}
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in variables.items() if value)
    device = "" if workers.gpus_per_worker else "export HPO_DEVICE=cpu\n"
    return f"""#!/bin/sh
# sbatch FILE, once the experiment is made. The workers find the database in the shared home (hpo server, or hpo launch
# --serve), or where HPO_STORAGE in the environment of sbatch names it.
#SBATCH --job-name={workers.label}
#SBATCH --array=0-{workers.workers - 1}
#SBATCH --cpus-per-task={workers.cpus_per_worker}
#SBATCH --mem={workers.memory_gb}G
{gpus}#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={workers.label}-%A_%a.log
# Before the time limit: within it a worker gives its trial back with a checkpoint.
#SBATCH --signal=B:USR1@{max(SIGNAL_SECONDS, workers.termination_seconds)}
{exports}{device}export HPO_THREADS=${{SLURM_CPUS_PER_TASK:-1}} OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-1}}
exec hpo {shlex.join(workers.command)}
"""


def compose(workers: Workers) -> str:
    """A compose file with the workers alone; the database is reached by the address in ``.env``."""
    shared = workers.checkpoint_dir is None
    devices = """
          devices:
            # Each worker sees all GPUs and takes the ones that the fewest others use: they lock files in "state".
            - driver: nvidia
              count: all
              capabilities: [gpu]""" * (workers.gpus_per_worker > 0)
    checkpoints = (
        "" if shared else f"\n      HPO_CHECKPOINT_DIR: {json.dumps(_uninterpolated(workers.checkpoint_dir or ''))}"
    )
    return f"""# docker compose -f FILE up, with HPO_STORAGE and PGPASSWORD in the environment or in .env.
services:
  worker:
    image: {json.dumps(workers.image)}
    entrypoint: ["hpo"]
    command: {json.dumps([_uninterpolated(word) for word in workers.command])}
    environment:
      HPO_STORAGE: ${{HPO_STORAGE:?set HPO_STORAGE, such as postgresql://hpo@host:5432/hpo}}
      # Not in the address, where @, / and : have a meaning: any character may be in it.
      PGPASSWORD: ${{PGPASSWORD:?set PGPASSWORD}}
      HPO_HOME: /home/hpo/state
      HPO_TRAINERS: {json.dumps(_uninterpolated(workers.trainers))}{checkpoints}
    volumes:
      - state:/home/hpo/state
    deploy:
      replicas: {workers.workers}
      resources:
        limits:
          cpus: "{workers.cpus_per_worker}"
          memory: {workers.memory_gb}G
        reservations:
          cpus: "{workers.cpus_per_worker}"{devices}
    # Longer than an epoch: within it a worker gives its trial back with a checkpoint.
    stop_grace_period: {workers.termination_seconds}s
    restart: on-failure

volumes:
  state:
"""


def _uninterpolated(text: str) -> str:
    return text.replace("$", "$$")


MANIFESTS: dict[str, Callable[[Workers], str]] = {"kubernetes": kubernetes, "slurm": slurm, "compose": compose}


def manifest(kind: str, workers: Workers) -> str:
    """The text for ``kind``. Raises UsageError for one that there is not, or a number out of range."""
    if kind not in MANIFESTS:
        raise UsageError(f"a manifest is for one of {', '.join(MANIFESTS)}, not {kind!r}")
    for name, least in {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1, "memory_gb": 1}.items():
        if getattr(workers, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(workers, name)}")
    if 0 < workers.gpus_per_worker < workers.gpus_per_trial:
        raise UsageError(too_few_gpus(workers.gpus_per_worker, workers.gpus_per_trial))
    if workers.termination_seconds < 1:
        raise UsageError(f"--termination-seconds must be at least 1, not {workers.termination_seconds}")
    return MANIFESTS[kind](workers)
