"""The files of a data set: where they are expected, their checksums, their download.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import hashlib
from pathlib import Path

from hpo.trainers.classifier.dataset_table import DATASETS
from hpo.trainers.errors import TrainerError


def data_folder(name: str, data_dir: Path | None) -> Path | None:
    """Where the data set's files are expected; None for one that needs no folder.

    Raises:
        TrainerError: where it needs one and ``data_dir`` is None.
    """
    data = DATASETS[name]
    if data.folder is None:
        return None
    if data_dir is None:
        raise TrainerError(
            f"the data set {name!r} is read from files and no data folder was named: give --data-dir FOLDER or set "
            f"HPO_DATA; {data.folder}/{data.files[0][0]} is expected below it"
        )
    return Path(data_dir) / data.folder


def verify_files(name: str, data_dir: Path | None, download: bool = False) -> dict[str, str]:
    """Checks that the data set is there and unaltered; downloads it first if allowed and absent.

    A file is trusted only after its checksum matched (CIFAR's are pickles).

    Returns:
        The checksum of each file, by name; what makes the data what it is.

    Raises:
        TrainerError: for a file that is absent, cut short or altered; the message names it and what was expected.
    """
    data = DATASETS[name]
    if data.checksums is not None:
        return data.checksums()
    folder = data_folder(name, data_dir)
    if folder is None:
        return {}
    missing = [file for file, _ in data.files if not (folder / file).is_file()]
    if missing and download and data.download is not None:
        assert data_dir is not None
        try:
            data.download(Path(data_dir))
        except Exception as error:
            raise TrainerError(f"the data set {name!r} could not be downloaded into {data_dir}: {error}") from error
        missing = [file for file, _ in data.files if not (folder / file).is_file()]
    if missing:
        raise TrainerError(
            f"the data set {name!r} is not complete in {folder}: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing; name the folder that holds {data.folder} with "
            f"--data-dir or HPO_DATA{', or allow the download with --download' if data.download else ''}"
        )
    for file, expected in data.files:
        found = checksum(folder / file, expected.partition(":")[0])
        if found != expected:
            raise TrainerError(
                f"{folder / file} is not the published file of the data set {name!r}: its checksum is {found}, "
                f"expected {expected} ({(folder / file).stat().st_size:,} bytes); remove it and fetch it again"
            )
    return dict(data.files)


def checksum(path: Path, algorithm: str) -> str:
    """Such as ``sha256:09f6...``; raises OSError where the file cannot be read."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def torchvision_download(class_name: str, data_dir: Path) -> None:
    """Downloads what ``torchvision.datasets.<class_name>`` reads."""
    import torchvision  # type: ignore[import-untyped]

    getattr(torchvision.datasets, class_name)(str(data_dir), download=True)
