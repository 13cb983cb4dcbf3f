"""The example of a user's own network and data set, launched, exported and trained again as processes."""

import json
import shutil
import tomllib
from pathlib import Path

from .conftest import REPOSITORY, Hpo


def test_the_example_is_searched_in_packs_and_trains_again(hpo_command: Hpo, tmp_path: Path) -> None:
    for name in ("own_network.py", "own_network.toml"):
        shutil.copy(REPOSITORY / "examples" / name, tmp_path / name)
    launched = hpo_command("launch", "own_network.toml", "--trainers", "own_network", "--workers", "1")
    assert launched.returncode == 0, launched.stderr
    status = json.loads(hpo_command("status", "own-network", "--json", HPO_TRAINERS="own_network").stdout)
    (study,) = status["studies"]
    assert study["states"]["complete"] == 12
    assert study["best"]["value"] > 0.5

    exported = hpo_command("export", "own-network", "--trainers", "own_network", "--output", "best.toml")
    assert exported.returncode == 0, exported.stderr
    content = tomllib.loads((tmp_path / "best.toml").read_text())
    assert {content["fixed"]["network"], content["fixed"]["dataset"]} == {"deep", "spirals"}
    # Trained in a pack, so the row of layers was taken for one.
    assert content["provenance"]["trained_on"]["slots"] == 4
    trained = hpo_command("train", "best.toml", "--trainers", "own_network", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["reproduced"] is True
