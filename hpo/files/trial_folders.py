"""The folders of trials: where one lies, and which of them stay after the trials have ended.

A study's folders lie beside its checkpoints, if those are in a folder of a file system, else in the home. Their paths
are made from the study's key and the lineage's number; nothing from the database becomes a path.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from hpo.files.store import open_place

FOLDERS = "trials"


class TrialFolders:
    """The folders of one study's trials, one for each lineage.

    Attributes:
        path: the folder that holds them.
    """

    def __init__(self, checkpoints: str | Path, home: Path, study_key: str) -> None:
        self.path = local_root(checkpoints, home) / study_key / FOLDERS

    def of(self, lineage: int) -> Path:
        """The lineage's folder, which need not exist."""
        return self.path / f"{lineage:06d}"

    def checkpoint_dir(self, lineage: int) -> Path:
        """Where a program of the lineage keeps its own checkpoints: inside of its folder."""
        return self.of(lineage) / "checkpoints"

    def clear(self, lineage: int) -> None:
        """Removes the lineage's folder; none is fine."""
        shutil.rmtree(self.of(lineage), ignore_errors=True)

    def lineages(self) -> list[int]:
        """The lineages that have a folder."""
        try:
            return sorted(int(path.name) for path in self.path.iterdir() if path.name.isdecimal())
        except OSError:
            return []

    def keep_best(self, best: int | None, finished: Iterable[int]) -> None:
        """Removes the folders of the ``finished`` lineages but that of ``best``; a running trial's folder stays."""
        ended = set(finished)
        for lineage in self.lineages():
            if lineage in ended and lineage != best:
                self.clear(lineage)


def local_root(checkpoints: str | Path, home: Path) -> Path:
    """The folder of ``checkpoints`` if it is on a file system, else the home's own."""
    place = open_place(checkpoints)
    return Path(place.base or "/") if place.is_local else home / "checkpoints"
