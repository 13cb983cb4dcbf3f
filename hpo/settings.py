"""Settings that all commands and the Python API share: places, data, trainers, and how a worker runs.

All defaults and all reading of the environment are here. Child processes get the settings by environment, so that no
address with a password shows in a list of processes.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from hpo.errors import StorageError, UsageError

T = TypeVar("T")


def _variable(name: str, read: Callable[[str], T], default: Any = None) -> Callable[[], T]:
    """Returns a field's default factory: reads the environment variable; ``default`` if it is not set or empty."""

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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each value that is not given is read from its environment variable, and is the default if that is not set.

    Attributes:
        storage: address of the database; None, or ``embedded``, for the embedded server in ``home``.
        home: folder of the embedded server, checkpoints, artifacts and logs.
        data_dir: folder of the data sets.
        trainers: modules with a user's own trainers, separated by commas.
        checkpoint_dir: folder or fsspec address of checkpoints; None for ``home``.
        download: whether missing data sets may be downloaded.
        heartbeat_seconds: seconds between two heartbeats of a worker.
        grace_seconds: a worker without a heartbeat for so long is taken for dead: its trials go to others.
        memory_limit_mb: size past which a worker is replaced.
        slots: trials that a worker trains at once; None: the study file, or measured.

    Raises:
        UsageError: if a value, given or of the environment, cannot be read or is out of range.
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

    def __post_init__(self) -> None:
        for name, value, least in (
            ("heartbeat_seconds", self.heartbeat_seconds, 0.1),
            ("grace_seconds", self.grace_seconds, 0.5),
            ("memory_limit_mb", self.memory_limit_mb, 1),
            ("slots", self.slots, 1),
        ):
            if value is not None and not value >= least:
                raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")

    @classmethod
    def given(cls, **values: Any) -> "Settings":
        """Settings of those ``values`` that are not None; the others come from the environment or are the defaults."""
        return cls(**{name: value for name, value in values.items() if value is not None})

    def replaced(self, **values: Any) -> "Settings":
        """These settings with those ``values`` that are not None; ``home`` and ``data_dir`` may be text."""
        given = {name: value for name, value in values.items() if value is not None}
        for name in ("home", "data_dir"):
            if name in given:
                given[name] = Path(given[name])
        return replace(self, **given)

    @property
    def home_path(self) -> Path:
        """The home, which need not exist: ``home``, else the user's data folder."""
        return Path(self.home or platformdirs.user_data_path("hpo")).expanduser().absolute()

    @property
    def checkpoints(self) -> str:
        """Folder or address of the checkpoints."""
        return self.checkpoint_dir or str(self.home_path / "checkpoints")

    @property
    def artifact_root(self) -> str:
        """Folder or address of new artifacts: beside the checkpoints where those are shared, else in the home."""
        return f"{self.checkpoint_dir.rstrip('/')}/artifacts" if self.checkpoint_dir else str(self.artifacts)

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts."""
        return self.home_path / "artifacts"

    @property
    def unsent_artifacts(self) -> Path | None:
        """Folder of artifacts that are still to be sent to an address; None if no checkpoint folder is given."""
        if self.checkpoint_dir is None:
            return None
        return self.home_path / "unsent" / hashlib.sha256(self.checkpoint_dir.encode()).hexdigest()[:16]

    @property
    def artifact_places(self) -> tuple[str | Path, ...]:
        """Where artifacts are looked for, in this order; new ones go to the first."""
        unsent = self.unsent_artifacts
        return (self.artifact_root, *(() if unsent is None else (unsent,)), self.artifacts)

    @property
    def logs(self) -> Path:
        """Folder of the workers' logs."""
        return self.home_path / "logs"

    def make_home(self) -> Path:
        """Makes the home if it does not exist, and returns it.

        Raises:
            StorageError: if it cannot be made or written.
        """
        return make_home(self.home_path)

    def environment(self) -> dict[str, str]:
        """This process's environment with the settings in it, for a worker process."""
        values = {
            "HPO_STORAGE": self.storage,
            "HPO_HOME": str(self.make_home()),
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


def make_home(folder: Path) -> Path:
    """Makes the folder if it does not exist, and returns it.

    Raises:
        StorageError: if it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder {folder} cannot be made ({error.strerror}): name one that you may write to with HPO_HOME"
        ) from None
    if not os.access(folder, os.W_OK):
        raise StorageError(f"the folder {folder} cannot be written: name one that you may write to with HPO_HOME")
    return folder
