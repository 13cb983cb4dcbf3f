"""Where things lie and how a worker runs, as a command or the Python API was told; passed to child processes by
environment, so that no address with a password shows in a list of processes."""

import os
from dataclasses import dataclass
from pathlib import Path

from hpo.postgres import home_folder


@dataclass(frozen=True)
class Settings:
    """What all commands share. None: not given, so the environment or the default decides.

    Attributes:
        storage: address of the database; None for the embedded server in ``home``.
        home: folder of the embedded server, checkpoints, artifacts and logs.
        data_dir: folder of the data sets.
        trainers: modules with a user's own trainers, separated by commas.
        checkpoint_dir: folder or fsspec address of checkpoints; None for ``home``.
        download: whether missing data sets may be downloaded.
        heartbeat_seconds: how often a worker shows that it lives.
        grace_seconds: after how long a silent worker's trials are given to others.
        memory_limit_mb: size past which a worker is replaced.
        slots: trials that a worker trains at once; None: the study file, or measured.
    """

    storage: str | None = None
    home: Path | None = None
    data_dir: Path | None = None
    trainers: str = ""
    checkpoint_dir: str | None = None
    download: bool = False
    heartbeat_seconds: float = 5.0
    grace_seconds: float = 30.0
    memory_limit_mb: int | None = None
    slots: int | None = None

    @property
    def home_folder(self) -> Path:
        return home_folder(self.home)

    @property
    def checkpoints(self) -> str:
        return self.checkpoint_dir or str(self.home_folder / "checkpoints")

    @property
    def artifacts(self) -> Path:
        return self.home_folder / "artifacts"

    def environment(self) -> dict[str, str]:
        """This process's environment with the settings in it, for a worker process."""
        values = {
            "HPO_STORAGE": self.storage,
            "HPO_HOME": str(self.home_folder),
            "HPO_DATA": self.data_dir and str(Path(self.data_dir).absolute()),
            "HPO_TRAINERS": self.trainers,
            "HPO_CHECKPOINT_DIR": self.checkpoint_dir,
            "HPO_DOWNLOAD": "1" if self.download else None,
            "HPO_HEARTBEAT_SECONDS": str(self.heartbeat_seconds),
            "HPO_GRACE_SECONDS": str(self.grace_seconds),
            "HPO_MEMORY_LIMIT_MB": self.memory_limit_mb and str(self.memory_limit_mb),
            "HPO_SLOTS": self.slots and str(self.slots),
        }
        kept = {name: value for name, value in os.environ.items() if name not in values}
        return kept | {name: value for name, value in values.items() if value}
