"""Without torch, torchvision and scikit-learn: everything works but the classifier, which says what to install."""

from pathlib import Path

import pytest

from .conftest import REPOSITORY, Hpo

BLOCKER = """
import sys

class Blocker:
    names = {names!r}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""
CLASSIFIER = """
name = "blocked"
trainer = "classifier"
metric = "val_accuracy"
samplers = ["random"]
budget = { trials = 2 }
fixed = { dataset = "digits", epochs = 1 }
space = { lr = { low = 0.01, high = 0.1 } }
"""
OWN = """
import hpo

class Config(hpo.Config):
    x: float = 1.0
    epochs: int = 2

@hpo.trainer("own", metrics={"loss": "minimize"})
def own(config: Config, run: hpo.Run):
    for epoch in range(run.start_epoch, config.epochs):
        run.save({"epoch": epoch})
        yield {"loss": config.x / (epoch + 1)}
"""
OWN_STUDY = """
name = "own"
trainer = "own"
metric = "loss"
samplers = ["tpe"]
budget = { trials = 3 }
space = { x = { low = 0.0, high = 1.0 } }
"""


@pytest.fixture
def blocked(tmp_path: Path, environment: dict[str, str]) -> Path:
    """A folder first on the path whose ``sitecustomize`` makes the libraries unfindable in every process."""
    folder = tmp_path / "blocker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER.format(names={"torch", "torchvision", "sklearn"}))
    environment |= {"PYTHONPATH": f"{folder}:{REPOSITORY}", "HPO_TRAINERS": ""}
    return tmp_path


def test_the_classifier_says_what_to_install(blocked: Path, hpo_command: Hpo) -> None:
    (blocked / "classifier.toml").write_text(CLASSIFIER)
    launched = hpo_command("launch", "classifier.toml", "--workers", "1")
    assert launched.returncode == 2
    assert launched.stderr == (
        "error: trainer 'classifier' needs torch, torchvision, scikit-learn, which are not installed: "
        "pip install 'hpo-service[classifier]'\n"
    )


def test_the_rest_works(blocked: Path, hpo_command: Hpo) -> None:
    listed = hpo_command("list")
    assert listed.returncode == 0, listed.stderr
    assert "classifier" in listed.stdout
    assert "squeeze_expand" in listed.stdout
    (blocked / "own.py").write_text(OWN)
    (blocked / "own.toml").write_text(OWN_STUDY)
    for command in (
        ("launch", "own.toml", "--trainers", "own.py", "--workers", "1"),
        ("status", "own", "--trainers", "own.py"),
        ("compare", "own"),
        ("export", "own", "--trainers", "own.py", "--output", "best.toml"),
        ("train", "best.toml", "--trainers", "own.py"),
    ):
        done = hpo_command(*command)
        assert done.returncode == 0, (command, done.stderr)
        assert "Traceback" not in done.stderr
