"""Experiments made by version 0.1.0 still open, continue, export and train again.

``tests/data/experiments-0.1.0.sql.gz`` is a dump of its database: ``old-bowl`` (a generator, finished, two lineages
failed), ``old-half`` (the same trainer, interrupted with a trial in the queue) and ``old-digits`` (the classifier).
"""

import gzip
import json
import math
from pathlib import Path

import psycopg2
import pytest
import sqlalchemy as sa

from .conftest import Hpo

DATA = Path(__file__).parents[1] / "data"
BOWL = """
name = "{name}"
trainer = "old_bowl"
metric = "loss"
samplers = {samplers}
repeats = {repeats}
budget = {{ trials = {trials} }}
pruner = "median"
[space]
x = {{ low = -5.0, high = 5.0 }}
y = {{ low = -5.0, high = 5.0 }}
"""


@pytest.fixture
def old(environment: dict[str, str], empty_database: str, tmp_path: Path) -> str:
    """A database as version 0.1.0 left it, and its trainer's module; returns the address."""
    url = sa.engine.make_url(empty_database)
    connection = psycopg2.connect(
        host=url.query.get("host") or url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        dbname=url.database,
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(gzip.decompress((DATA / "experiments-0.1.0.sql.gz").read_bytes()).decode())
    connection.close()
    (tmp_path / "legacy_trainers.py").write_text((DATA / "legacy_trainers.py").read_text())
    environment |= {"HPO_STORAGE": empty_database, "HPO_TRAINERS": "legacy_trainers"}
    return empty_database


def test_the_views_of_an_older_experiment(old: str, hpo_command: Hpo) -> None:
    status = json.loads(hpo_command("status", "old-bowl", "--json").stdout)
    assert status["experiment"] == "old-bowl"
    assert [
        (s["sampler"], s["repeat"], s["states"]["complete"], s["states"]["pruned"], s["states"]["failed"])
        for s in status["studies"]
    ] == [
        ("random", 0, 5, 0, 1),
        ("tpe", 0, 5, 1, 0),
        ("random", 1, 5, 1, 0),
        ("tpe", 1, 5, 0, 1),
    ]
    compared = hpo_command("compare", "old-bowl", "--json")
    assert compared.returncode == 0, compared.stderr
    finals = json.loads(compared.stdout)["samplers"]["tpe"]["final"]["values"]
    assert list(finals.values()) == pytest.approx([0.427861, 0.213033], rel=1e-4)


def test_the_best_of_an_older_experiment_trains_again(old: str, hpo_command: Hpo) -> None:
    exported = hpo_command("export", "old-bowl", "--output", "best.toml")
    assert exported.returncode == 0, exported.stderr
    trained = hpo_command("train", "best.toml", "--json")
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["reproduced"] is True
    assert result["expected"] == result["obtained"]
    assert math.isclose(result["obtained"], 0.213033, rel_tol=1e-4)


def test_an_interrupted_older_experiment_goes_on(old: str, hpo_command: Hpo, tmp_path: Path) -> None:
    """The trial that waits has no checkpoint here, so it starts again with the configuration that it had."""
    (tmp_path / "half.toml").write_text(BOWL.format(name="old-half", samplers='["random"]', repeats=1, trials=8))
    launched = hpo_command("launch", "half.toml", "--workers", "1")
    assert launched.returncode in (0, 1), launched.stderr  # 1: a lineage whose x is above 4 fails
    (study,) = json.loads(hpo_command("status", "old-half", "--json").stdout)["studies"]
    assert study["finished"], launched.stderr
    assert sum(study["states"][state] for state in ("complete", "pruned", "failed")) == 8


def test_an_older_classifier_is_the_same_version(old: str, hpo_command: Hpo, tmp_path: Path) -> None:
    """New fields, networks and data sets in the package are no other version of the classifier."""
    (tmp_path / "digits.toml").write_text(
        'name = "old-digits"\ntrainer = "classifier"\nmetric = "val_accuracy"\nsamplers = ["tpe"]\n'
        'budget = { trials = 5 }\npruner = "asha"\n[fixed]\ndataset = "digits"\nnetwork = "mlp"\nepochs = 3\n'
        "width_1 = 16\nwidth_2 = 8\n[space]\nlr = { low = 1e-3, high = 0.3, log = true }\nbatch_size = [32, 64]\n"
    )
    launched = hpo_command("launch", "digits.toml", "--workers", "1")
    assert launched.returncode == 0, launched.stderr
    (study,) = json.loads(hpo_command("status", "old-digits", "--json").stdout)["studies"]
    assert study["states"]["complete"] + study["states"]["pruned"] == 5


def test_a_file_exported_by_the_older_version_trains(hpo_command: Hpo, tmp_path: Path) -> None:
    """On another processor the last bits may differ, so the value is compared to a hundredth."""
    (tmp_path / "best.toml").write_text((DATA / "best-0.1.0.toml").read_text())
    trained = hpo_command("train", "best.toml", "--json")
    assert trained.returncode in (0, 1), trained.stderr
    result = json.loads(trained.stdout)
    assert abs(result["obtained"] - 0.8966666666666666) < 0.011


def test_an_older_experiment_is_deleted(old: str, hpo_command: Hpo) -> None:
    assert hpo_command("delete", "old-half", "--yes").returncode == 0
    assert "old-half" not in hpo_command("status").stdout
