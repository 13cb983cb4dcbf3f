"""The table of trainers."""

import subprocess
import sys

import pytest

from hpo.trainers.errors import TrainerError
from hpo.trainers.protocol import BuildOptions, Trainer
from hpo.trainers.registry import TRAINERS, TrainerEntry, register


def run(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_trainer_of_the_package_is_imported_when_its_row_is_asked_for() -> None:
    run(
        "import sys\n"
        "from hpo.trainers.loading import load_trainers\n"
        "from hpo.trainers.registry import TRAINERS\n"
        "load_trainers('')\n"
        "assert list(TRAINERS) == ['classifier', 'program'] and 'classifier' in TRAINERS and 'mine' not in TRAINERS\n"
        "assert 'hpo.trainers.classifier.config' not in sys.modules\n"
        "assert TRAINERS['classifier'].name == 'classifier'\n"
        "assert 'hpo.trainers.classifier.config' in sys.modules and 'torch' not in sys.modules\n"
    )


def test_the_module_of_a_row_may_be_imported_before_the_row_is_asked_for() -> None:
    run(
        "import hpo.trainers.classifier.entry\n"
        "from hpo.trainers.registry import TRAINERS\n"
        "assert TRAINERS['classifier'].build is hpo.trainers.classifier.entry._build_classifier\n"
    )


def test_a_name_of_the_package_cannot_be_taken() -> None:
    def build(options: BuildOptions) -> Trainer:
        raise NotImplementedError

    before = TRAINERS["classifier"]
    with pytest.raises(TrainerError, match="two trainers are called 'classifier'"):
        register(TrainerEntry("classifier", None, build, "mine"))
    assert TRAINERS["classifier"] is before
