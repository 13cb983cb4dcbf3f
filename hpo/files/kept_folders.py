"""The folders and logs that workers send to a shared address, and how any machine reads them.

Below the address, ``<study's key>/trials/<lineage>`` is a copy of a trial's folder and ``<study's key>/workers`` holds
the logs of workers, those of an experiment beside its first study. Paths are made from keys, numbers and names that
are checked; nothing from the database becomes a path. If the address is a folder of a file system, the trials' folders
themselves lie there and nothing is copied.
"""

import os
import re
import secrets
from pathlib import Path
from typing import BinaryIO

from hpo.files.checkpoints import is_study_key
from hpo.files.store import Place, open_place
from hpo.files.trial_folders import FOLDERS, TrialFolders
from hpo.settings import Settings
from hpo.trainers.model_file import MODEL_STEM, model_files

LOGS = "workers"
LOG_BYTES = 2**20
"""What is sent of a worker's log: its end."""


class FolderCopies:
    """Copies of the folders of one study's trials, and of workers' logs, at an address."""

    def __init__(self, place: Place, study_key: str) -> None:
        """Raises ValueError for a ``study_key`` that is not one of ours: it becomes a folder's name."""
        if not is_study_key(study_key):
            raise ValueError(f"{study_key!r} is no key of a study")
        self._place, self._key = place, study_key

    def address(self, lineage: int) -> str:
        """Where the copy is, for a person."""
        return str(self._place.files.unstrip_protocol(self._path(lineage)))

    def send(self, lineage: int, folder: Path) -> None:
        """Copies the files of ``folder``, in the order in which they were written; what is not there any more goes.

        Raises OSError if the address cannot be written.
        """
        files = local_files(folder)
        earlier = self.files(lineage)
        for name in sorted(files, key=lambda name: _modified(folder / name)):
            self.send_file(lineage, name, folder / name)
        for name in earlier.keys() - files.keys():
            self._place.files.rm_file(self._path(lineage, name))

    def send_file(self, lineage: int, name: str, path: Path) -> None:
        """Copies one file, if it is there and can be read; raises OSError if the address cannot be written."""
        if not os.access(path, os.R_OK):
            return
        try:
            self._place.files.put_file(str(path), self._path(lineage, name))
        except FileNotFoundError:
            if path.is_file():  # else it was removed meanwhile, and it is not the address that fails
                raise

    def files(self, lineage: int) -> dict[str, int]:
        """Bytes of each file of the copy, by its name; {} if there is none."""
        return self._place.sizes(self._key, FOLDERS, f"{lineage:06d}")

    def read(self, lineage: int, name: str) -> bytes:
        """A file of :meth:`files`; raises FileNotFoundError if there is none, OSError if it cannot be read."""
        return bytes(self._place.files.cat_file(self._path(lineage, name)))

    def open(self, lineage: int, name: str) -> BinaryIO:
        """A file of :meth:`files`, to be read in pieces; raises as :meth:`read`."""
        opened: BinaryIO = self._place.files.open(self._path(lineage, name), "rb")
        return opened

    def fetch(self, lineage: int, name: str, target: Path) -> None:
        """Copies a file of :meth:`files` to ``target``, whole or not at all; raises as :meth:`read`."""
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            self._place.files.get_file(self._path(lineage, name), str(aside))
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)

    def newest_model(self, lineage: int) -> str | None:
        """The name of the model that the trial kept; None if it kept none."""
        names = [name for name in self.files(lineage) if "/" not in name and Path(name).stem == MODEL_STEM]
        return max(names, key=lambda name: (self._place.files.modified(self._path(lineage, name)), name), default=None)

    def lineages(self) -> list[int]:
        """The lineages that have a copy."""
        self._place.files.invalidate_cache()
        try:
            paths = self._place.files.ls(self._place.path(self._key, FOLDERS), detail=False)
        except FileNotFoundError:
            return []
        names = [path.rstrip("/").rpartition("/")[2] for path in paths]
        return sorted(int(name) for name in names if name.isdecimal())

    def clear(self, lineage: int) -> None:
        """Removes a copy; none is fine. Raises OSError if the address cannot be written."""
        if self.files(lineage):
            self._place.files.rm(self._path(lineage), recursive=True)

    def send_log(self, worker: str, path: Path) -> None:
        """Copies the end of a worker's log; raises OSError if it cannot."""
        try:
            with path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
                data = file.read()
        except OSError:
            return  # a person has removed it
        self._place.files.pipe_file(self._place.path(self._key, LOGS, _log_file(worker)), data)

    def read_log(self, worker: str) -> bytes:
        """What :meth:`send_log` has copied; raises FileNotFoundError if there is none, OSError if it cannot be read."""
        return bytes(self._place.files.cat_file(self._place.path(self._key, LOGS, _log_file(worker))))

    def _path(self, lineage: int, *names: str) -> str:
        return self._place.path(self._key, FOLDERS, f"{lineage:06d}", *names)


def folder_copies(checkpoints: str | Path, study_key: str) -> FolderCopies | None:
    """The copies at an address; None if ``checkpoints`` is a folder, which then holds the trials' folders themselves.

    Raises UsageError for an address of a kind that nothing here opens.
    """
    place = open_place(checkpoints)
    return None if place.is_local else FolderCopies(place, study_key)


class KeptFolder:
    """The folder of a trial as a machine finds it: its own, else the copy at the shared address.

    Attributes:
        where: the folder's path or its copy's address; None if it is at neither.
        files: bytes of each of its files, by its name.
        is_here: whether it is a folder of this machine.
    """

    def __init__(self, settings: Settings, study_key: str, lineage: int) -> None:
        """Raises OSError if the shared address does not answer."""
        self._lineage = lineage
        self._folder = TrialFolders(settings.checkpoints, settings.home_path, study_key).of(lineage)
        self._copies = folder_copies(settings.checkpoints, study_key)
        self.where: str | None = None
        self.files = local_files(self._folder)
        self.is_here = bool(self.files)
        if self.is_here:
            self.where = str(self._folder)
        elif self._copies is not None and (files := self._copies.files(lineage)):
            self.files, self.where = files, self._copies.address(lineage)

    def open(self, name: str) -> BinaryIO:
        """One of ``files``, to be read; raises KeyError for another name, OSError if it cannot be read."""
        if name not in self.files:
            raise KeyError(name)
        if self.is_here or self._copies is None:
            return (self._folder / name).open("rb")
        return self._copies.open(self._lineage, name)

    def fetch(self, name: str, target: Path) -> None:
        """Copies a file that is not here to ``target``; raises OSError if it cannot."""
        assert self._copies is not None
        self._copies.fetch(self._lineage, name, target)

    def model(self) -> str | None:
        """The name of the model that the trial kept; None if it kept none."""
        if self.is_here:
            return next((path.name for path in model_files(self._folder)), None)
        return self._copies.newest_model(self._lineage) if self._copies is not None and self.files else None


def local_files(folder: Path) -> dict[str, int]:
    """Bytes of each file below a folder, by its path from there; links are left out. {} if there is no folder."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _log_file(worker: str) -> str:
    return re.sub(r"[^0-9A-Za-z_.@-]", "_", worker)[:150] + ".log"
