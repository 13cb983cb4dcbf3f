"""``hpo compare`` as a person runs it, on experiments that real workers ran."""

import json
from collections.abc import Callable
from pathlib import Path

from .conftest import Hpo

REPEATED = """
name = "{name}"
trainer = "sleeping"
metric = "value"
samplers = ["random", "tpe"]
repeats = 6
budget = {{ trials = 4 }}
target = 0.2
[fixed]
epochs = 2
epoch_seconds = 0.0
[space]
lr = {{ low = 1e-3, high = 1.0, log = true }}
beta = {{ low = 0.8, high = 0.99 }}
"""


def test_compare(hpo_command: Hpo, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.toml").write_text(REPEATED.format(name=name))
        done = hpo_command("launch", f"{name}.toml", "--workers", "2")
        assert done.returncode == 0, done.stderr

    shown = hpo_command("compare", "one", "--html", "page.html", "--csv", "tables")
    assert shown.returncode == 0, shown.stderr
    assert "random against tpe" in shown.stdout or "random is" in shown.stdout
    assert "Cost to reach 0.2" in shown.stdout
    assert (tmp_path / "page.html").stat().st_size > 1_000_000
    assert (tmp_path / "tables" / "one-curves.csv").is_file()

    content = json.loads(hpo_command("compare", "one", "--json").stdout)
    assert content["finished"] is True
    assert content["samplers"]["tpe"]["cost"]["trials"] == 24
    assert content["samplers"]["tpe"]["final"]["n"] == 6
    assert content["pairwise"][0]["verdict"] in (
        "better",
        "worse",
        "not decided",
        "no difference that these repeats could show",
    )
    assert 0 < content["pairwise"][0]["p_value"] <= 1

    again = json.loads(hpo_command("compare", "one", "--json", "--retrain", "3").stdout)
    retrained = again["samplers"]["random"]["retrained"]
    assert retrained["validation"]["n"] == 3
    assert retrained["reported"] == content["samplers"]["random"]["best"]["value"]
    # The sleeping trainer's value holds the seed in its last digits: at most 0.001 apart.
    assert abs(retrained["validation"]["mean"] - retrained["reported"]) < 0.001
    assert 0 < again["noise"]["spread"] < 0.001

    both = json.loads(hpo_command("compare", "one", "two", "--json").stdout)
    assert sorted(both["tasks"]["ranks"].values()) in ([1.0, 2.0], [1.5, 1.5])
    assert both["experiments"].keys() == {"one", "two"}


def test_bad_input(hpo_command: Hpo, study: Callable[..., Path]) -> None:
    assert (
        hpo_command(
            "launch", str(study(samplers='["random", "tpe"]', budget="trials = 2")), "--workers", "1"
        ).returncode
        == 0
    )
    for arguments, code, message in (
        (["compare", "sleepi"], 1, "did you mean 'sleepy'?"),
        (["compare", "sleepy", "--retrain", "1"], 2, "--retrain must be at least 2"),
        (["compare", "sleepy", "sleepy"], 2, "named twice"),
        (["compare", "sleepy", "--html", "no/where.html"], 2, "there is no folder no"),
        (["dashboard", "--host", "0.0.0.0", "--port", "0"], 1, "open to everyone who reaches 0.0.0.0"),
        (["dashboard", "--port", "70000"], 1, "between 0 and 65535"),
    ):
        done = hpo_command(*arguments)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    once = hpo_command("compare", "sleepy")
    assert once.returncode == 0
    assert "One repeat only" in once.stdout
