"""``hpo init`` for a trainer, the classifier and a program: the file that it writes is accepted."""

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpo.cli.main import app
from hpo.firstfile.program import read_options
from hpo.studyfile.load import load_study_file

TRAINER = '''
import hpo
from pydantic import Field

class Config(hpo.Config):
    lr: float = Field(0.1, gt=0, le=1, description="learning rate")
    width: int = Field(64, ge=8, le=512)
    kind: str = "plain"
    dropout: float = 0.0

@hpo.trainer("first_file_trainer", metrics={"val_accuracy": "maximize"})
def train(config: Config, run: hpo.Run):
    """Nothing."""
    yield {"val_accuracy": 1.0}
'''
SCRIPT = """
import argparse
parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("--lr", type=float, default=0.01, help="learning rate")
parser.add_argument("-b", "--batch-size", type=int, default=64, metavar="N", help="inputs of a step")
parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd", help="which one")
parser.add_argument("--seed", type=int, default=0, help="of everything")
parser.add_argument("--data-dir", default="data", help="where the data is")
parser.add_argument("--nesterov", action="store_true", help="a flag")
parser.parse_args()
"""


def init(*arguments: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["init", *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout, done.stderr


def test_for_a_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_first.py").write_text(TRAINER)
    shown, problems = init("--trainers", "my_first.py", "--trainer", "first_file_trainer")
    assert "hpo launch study.toml --trainers my_first.py" in shown
    assert "before it can be launched" not in problems
    study_file = load_study_file("study.toml", "my_first.py")
    assert list(study_file.space.parameters) == ["lr", "width"]
    text = (tmp_path / "study.toml").read_text()
    assert "> 0 and ≤ 1, learning rate" in text
    assert '# kind = "plain"' in text
    again = CliRunner().invoke(app, ["init", "--trainers", "my_first.py", "--trainer", "first_file_trainer"])
    assert "exists; name another file" in str(again.exception)


@pytest.mark.parametrize(
    ("dataset", "network"), [("mnist", "mlp"), ("cifar10", "resnet18"), ("digits", "squeeze_expand")]
)
def test_for_the_classifier(tmp_path: Path, dataset: str, network: str) -> None:
    path = tmp_path / "c.toml"
    _, problems = init("--dataset", dataset, "--network", network, "-o", str(path))
    assert problems == ""
    assert load_study_file(path).fixed["network"] == network


def test_a_network_that_does_not_fit() -> None:
    done = CliRunner().invoke(app, ["init", "--dataset", "mnist", "--network", "relu_line"])
    assert "cannot read mnist; those that can: " in str(done.exception)


def test_for_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    init("python", "train.py")
    table = tomllib.loads((tmp_path / "study.toml").read_text())
    assert table["space"]["lr"] == {"low": 0.001, "high": 0.1, "log": True}
    assert table["space"]["batch_size"] == {"low": 16, "high": 256, "log": True}
    assert table["space"]["optimizer"] == ["sgd", "adam"]
    for words in ("--lr {lr}", "--batch-size {batch_size}", "--seed {seed}"):
        assert words in table["command"]
    assert "data-dir" not in table["command"]
    assert list(load_study_file("study.toml").space.parameters) == ["lr", "batch_size", "optimizer"]


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no config found')")
    done = CliRunner().invoke(app, ["init", str(script)])
    assert "ended with exit code 1: no config found" in str(done.exception)


def test_options_of_a_help_text() -> None:
    text = "options:\n  -h, --help  show this\n  --beta-1 B  long\n          text (default: 0.9)\n  --flag  a flag\n"
    assert [(option.name, option.metavar, option.default) for option in read_options(text)] == [
        ("help", None, None),
        ("beta-1", "B", 0.9),
        ("flag", None, None),
    ]
