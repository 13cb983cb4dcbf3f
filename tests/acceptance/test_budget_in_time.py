"""A search with a budget in time through the commands: it ends, every view agrees, a larger time goes on."""

import json
from collections.abc import Callable
from pathlib import Path

from .conftest import Hpo


def test_a_search_of_some_seconds(hpo_command: Hpo, study: Callable[..., Path]) -> None:
    path = study("hurried", '["random"]', "trials = 40, seconds = 4", epochs=3, seconds=0.15)
    launched = hpo_command("launch", str(path), "--workers", "2")
    assert launched.returncode == 0, launched.stderr
    (before,) = json.loads(hpo_command("status", "hurried", "--json").stdout)["studies"]
    assert before["finished"]
    assert before["budget"] == {"trials": 40, "seconds": 4.0}
    assert 0 < before["states"]["complete"] < 40
    assert before["states"]["running"] == 0
    if before["states"]["waiting"]:
        line = f"{before['states']['waiting']} trials had not ended when its time was over"
        assert line in launched.stdout
        assert line in hpo_command("status", "hurried").stdout
    assert json.loads(hpo_command("compare", "hurried", "--json").stdout)["finished"]
    assert "is finished already" in hpo_command("launch", str(path), "--workers", "2").stderr

    path.write_text(path.read_text().replace("seconds = 4 ", "hours = 1 "))
    again = hpo_command("launch", str(path), "--workers", "2")
    assert again.returncode == 0, again.stderr
    (after,) = json.loads(hpo_command("status", "hurried", "--json").stdout)["studies"]
    assert (after["states"]["complete"], after["states"]["waiting"], after["epochs"]) == (40, 0, 120)
    assert after["seconds_left"] > 3500
