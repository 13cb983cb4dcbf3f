"""A worker's whole log: the file that it writes, if it is on this machine, else the copy at the shared address."""

import socket
from pathlib import Path

from hpo.database.workers import WorkerRow
from hpo.errors import ExperimentError
from hpo.experiment.experiment import Experiment
from hpo.files.kept_folders import folder_copies
from hpo.settings import Settings


def worker_log(experiment: Experiment, row: WorkerRow, settings: Settings) -> bytes | None:
    """The log, of a long one at the address its end; None if it is on another machine, or the worker writes no file.

    Raises ExperimentError if the shared address does not answer.
    """
    host, _, path = str(row.report.get("log") or "").partition(":")
    try:
        if host == socket.gethostname() and Path(path).is_file():
            return Path(path).read_bytes()
        copies = folder_copies(settings.checkpoints, experiment.studies[0].key)
        return None if copies is None else copies.read_log(row.worker)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExperimentError(f"the log of the worker {row.worker} cannot be read: {error}") from error
