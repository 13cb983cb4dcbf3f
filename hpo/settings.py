"""Where things lie and how a worker runs, as a command or the Python API was told; passed to child processes by
environment, so that no address with a password shows in a list of processes."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from hpo.errors import StorageError, UsageError

T = TypeVar("T")


def _variable(name: str, read: Callable[[str], T], default: Any = None) -> Callable[[], T]:
    """A field's default: what the environment's variable says, or ``default`` where it is absent or empty."""

    def value() -> Any:
        text = os.environ.get(name)
        if not text:
            return default
        try:
            return read(text)
        except ValueError as error:
            raise UsageError(f"the environment variable {name} cannot be read: {error}") from None

    return value


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "t", "yes", "y", "on"):
        return True
    if text.lower() in ("0", "false", "f", "no", "n", "off"):
        return False
    raise ValueError(f"expected true or false, not {text!r}")


@dataclass(frozen=True)
class Settings:
    """What all commands share. What is not given is what the environment says, else the default.

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

    Raises:
        UsageError: where a variable of the environment holds no number that has to.
    """

    storage: str | None = field(default_factory=_variable("HPO_STORAGE", str))
    home: Path | None = field(default_factory=_variable("HPO_HOME", Path))
    data_dir: Path | None = field(default_factory=_variable("HPO_DATA", Path))
    trainers: str = field(default_factory=_variable("HPO_TRAINERS", str, ""))
    checkpoint_dir: str | None = field(default_factory=_variable("HPO_CHECKPOINT_DIR", str))
    download: bool = field(default_factory=_variable("HPO_DOWNLOAD", _flag, False))
    heartbeat_seconds: float = field(default_factory=_variable("HPO_HEARTBEAT_SECONDS", float, 5.0))
    grace_seconds: float = field(default_factory=_variable("HPO_GRACE_SECONDS", float, 30.0))
    memory_limit_mb: int | None = field(default_factory=_variable("HPO_MEMORY_LIMIT_MB", int))
    slots: int | None = field(default_factory=_variable("HPO_SLOTS", int))

    @property
    def home_folder(self) -> Path:
        return home_folder(self.home)

    @property
    def checkpoints(self) -> str:
        return self.checkpoint_dir or str(home_path(self.home) / "checkpoints")

    @property
    def artifacts(self) -> Path:
        return home_path(self.home) / "artifacts"

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


def home_path(home: str | Path | None = None) -> Path:
    """Where the embedded server, checkpoints and artifacts live: given, ``HPO_HOME``, the user's data folder."""
    return Path(home or os.environ.get("HPO_HOME") or platformdirs.user_data_path("hpo")).expanduser().absolute()


def home_folder(home: str | Path | None = None) -> Path:
    """The same, as a folder that is there and can be written.

    Raises:
        StorageError: where the folder cannot be made or written.
    """
    folder = home_path(home)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder {folder} cannot be made ({error.strerror}): name one that you may write to with HPO_HOME"
        ) from None
    if not os.access(folder, os.W_OK):
        raise StorageError(f"the folder {folder} cannot be written: name one that you may write to with HPO_HOME")
    return folder
