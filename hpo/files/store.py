"""Where shared files lie: a folder, or an address that fsspec opens, such as ``s3://bucket/folder``.

Clients of object stores raise errors of their own if a store does not answer. Here each of them is an OSError, so that
whoever writes a file has one kind of error to expect, whatever the store.
"""

import functools
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from hpo.errors import ExperimentError, UsageError


class _RaisingOSError:
    """A file system of fsspec whose calls raise OSError for every failure."""

    def __init__(self, files: Any) -> None:
        self._files = files

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._files, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return found(*arguments, **options)
            except OSError:
                raise
            except Exception as error:
                raise OSError(f"{type(error).__name__}: {error}") from error

        return call


@dataclass(frozen=True)
class Place:
    """A folder or an address, opened.

    Attributes:
        files: the file system, as fsspec has it.
        base: path of the place in it, without a slash at its end.
        is_local: whether it is a folder of this machine's file systems, which other machines may share.
    """

    files: Any
    base: str
    is_local: bool

    def path(self, *parts: str) -> str:
        return "/".join((self.base, *parts))

    def sizes(self, *parts: str) -> dict[str, int]:
        """Bytes of each file below the place's ``parts``, by its path from there; {} if there is none."""
        folder = self.path(*parts)
        self.files.invalidate_cache()
        try:
            found = self.files.find(folder, detail=True)
        except FileNotFoundError:
            return {}
        return {path[len(folder) + 1 :]: int(info["size"] or 0) for path, info in found.items() if path != folder}


def open_place(root: str | Path) -> Place:
    """Opens a folder or an address; does not connect.

    Raises:
        UsageError: for an address of a kind that nothing here opens.
    """
    try:
        files, base = fsspec.core.url_to_fs(str(root))
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"the address {root} cannot be opened: {error}; --checkpoint-dir takes a folder, or an address whose "
            "package is installed (s3://: pip install s3fs; gs://: gcsfs; az://: adlfs)"
        ) from None
    is_local = isinstance(files, fsspec.implementations.local.LocalFileSystem)
    return Place(files if is_local else _RaisingOSError(files), base.rstrip("/"), is_local)


def check_writable(root: str | Path) -> None:
    """Writes and removes a small file at an address; nothing for a folder, which each machine makes itself.

    Raises:
        UsageError: for an address of a kind that nothing here opens.
        ExperimentError: if it cannot be written.
    """
    place = open_place(root)
    if place.is_local:
        return
    path = place.path(f"writable-{secrets.token_hex(8)}")
    try:
        place.files.pipe_file(path, b"hpo")
        place.files.rm_file(path)
    except OSError as error:
        raise ExperimentError(
            f"the address {root} of --checkpoint-dir cannot be written: {error.strerror or error}; does the bucket "
            "exist, and does this machine have the rights and the credentials?"
        ) from error
