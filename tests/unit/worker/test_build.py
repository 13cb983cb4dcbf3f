"""What a worker hands to the builder of its trainer."""

import dataclasses
from pathlib import Path

import hpo.trainers.program  # noqa: F401 - registers the trainer
from hpo.studyfile.load import parse_study_file
from hpo.trainers.protocol import BuildOptions, Trainer
from hpo.trainers.registry import TRAINERS
from hpo.worker.build import build_trainer
from hpo.worker.options import WorkerOptions

FILE = {
    "name": "p",
    "trainer": "program",
    "metric": "loss",
    "direction": "minimize",
    "command": "true",
    "budget": {"trials": 1},
    "space": {"lr": {"low": 0.1, "high": 1.0}},
}


def test_every_option_reaches_the_builder(tmp_path: Path) -> None:
    handed: list[BuildOptions] = []

    def build(options: BuildOptions) -> Trainer:
        handed.append(options)
        return program.build(options)

    program = TRAINERS["program"]
    study_file = parse_study_file(FILE, "file")
    options = WorkerOptions(
        checkpoints=str(tmp_path),
        artifacts=tmp_path,
        device="cuda:1",
        threads=3,
        slots=1,
        data_dir=tmp_path,
        download=True,
        memory_bytes=12_345,
        device_workers=2,
    )
    build_trainer(dataclasses.replace(program, build=build), study_file, options).close()
    (given,) = handed
    assert given.program == study_file.program_options() != {}
    # A new option whose default is handed over has been forgotten in build_trainer, or here.
    defaults = BuildOptions()
    assert [
        field.name for field in dataclasses.fields(given) if getattr(given, field.name) == getattr(defaults, field.name)
    ] == []
