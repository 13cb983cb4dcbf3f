"""Makes a worker's trainer, and checks that the process has room for it."""

import logging

import psutil

from hpo.errors import ExperimentError
from hpo.studyfile.model import StudyFile
from hpo.trainers.protocol import BuildOptions, Trainer
from hpo.trainers.registry import TrainerEntry
from hpo.trainers.several_seeds import build_with_seeds
from hpo.worker.options import WorkerOptions

log = logging.getLogger("hpo")


def build_trainer(entry: TrainerEntry, study_file: StudyFile, options: WorkerOptions) -> Trainer:
    """The trainer of a worker.

    Raises:
        ExperimentError: if the process has passed its memory limit then, before its first trial.
    """
    slots, seeds = options.slots or study_file.slots, study_file.num_seeds
    if entry.max_slots is not None and slots is not None and slots > entry.max_slots:
        log.info("the trainer %s trains %d at a time; slots = %d is ignored", entry.name, entry.max_slots, slots)
        slots = entry.max_slots
    trainer = build_with_seeds(
        entry,
        BuildOptions(
            device=options.device,
            slots=slots,
            threads=options.threads,
            configs=tuple(study_file.example_configs()),
            data_dir=options.data_dir,
            download=options.download,
            program=study_file.program_options(),
            memory_bytes=options.memory_bytes,
            choose_threads=True,
            device_workers=options.device_workers,
        ),
        seeds,
    )
    limit, size = options.memory_limit_mb, size_mb()
    if limit is not None and size > limit:
        raise ExperimentError(
            f"--memory-limit-mb {limit} is less than the {size} MB that this worker takes before its first trial; "
            f"give it at least {2 * size}"
        )
    return trainer


def size_mb() -> int:
    """The resident memory of this process in MB."""
    return int(psutil.Process().memory_info().rss / 2**20)
