"""The documentation's example of a user's own trainer, run as it is written there."""

import json
import re
from pathlib import Path

from .conftest import REPOSITORY, Hpo

PAGE = REPOSITORY / "docs" / "reference" / "trainers.md"


def example(name: str) -> str:
    """The fenced block after the marker of that name in the page."""
    text = PAGE.read_text()
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"the page has no example {name}"
    return found[1]


def test_the_documented_trainer(hpo_command: Hpo, tmp_path: Path) -> None:
    for name in ("my_trainer.py", "quadratic.toml"):
        (tmp_path / name).write_text(example(name))
    assert "hpo launch quadratic.toml --trainers my_trainer --workers 2" in PAGE.read_text()

    launched = hpo_command("launch", "quadratic.toml", "--trainers", "my_trainer", "--workers", "2")
    assert launched.returncode == 0, launched.stderr
    status = json.loads(hpo_command("status", "quadratic", "--json", HPO_TRAINERS="my_trainer").stdout)
    assert [study["sampler"] for study in status["studies"]] == ["random", "tpe"]
    for study in status["studies"]:
        assert study["states"]["complete"] + study["states"]["pruned"] == 20
    best = min(study["best"]["value"] for study in status["studies"])

    exported = hpo_command("export", "quadratic", "--trainers", "my_trainer", "--output", "best.toml")
    assert exported.returncode == 0, exported.stderr
    trained = hpo_command("train", "best.toml", "--trainers", "my_trainer", "--json")
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert (result["expected"], result["obtained"], result["reproduced"]) == (best, best, True)
    config = result["config"]
    # Ten steps of 0.8 and 0.9: what the trainer computes, up to rounding.
    assert abs(best - (config["x"] ** 2 * 0.8**20 + config["y"] ** 2 * 0.9**20)) < 1e-12
