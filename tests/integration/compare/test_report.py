"""Comparisons of experiments in a database: unknown names, retraining, and what is published in Optuna's pages."""

import optuna
import pytest
import sqlalchemy as sa
from optuna_dashboard import save_note
from optuna_dashboard._note import get_note

from hpo.compare import output, report, tables
from hpo.compare.load import Loader
from hpo.compare.publish import IDS, publish
from hpo.errors import ExperimentError, UsageError
from tests.searches import fill


def test_unknown_experiments_show_the_near_miss(storage):
    with pytest.raises(ExperimentError, match="there is none yet"):
        Loader(storage).load("x")
    fill(storage, "digits-mlp", ("random",), 1, 2)
    with pytest.raises(ExperimentError, match=r"no experiment 'digit-mlp' \(did you mean 'digits-mlp'\?\)"):
        report.compare(storage, ["digit-mlp"])
    with pytest.raises(UsageError, match="named twice"):
        report.compare(storage, ["digits-mlp", "digits-mlp"])


def test_retraining_shows_the_selection_bias_and_gives_the_noise_floor(storage):
    asked = []

    def train(experiment, config, seeds):
        asked.append((experiment, dict(config), list(seeds)))
        return [{"seed": s, "val_accuracy": 0.5 + 0.01 * i, "test_accuracy": 0.4} for i, s in enumerate(seeds)]

    fill(storage, "e", ("random", "tpe"), 2, 4)
    found = report.compare(storage, ["e"], retrain=3, train=train).experiments[0]
    again = found.samplers["random"].retrained
    assert again.validation.mean == pytest.approx(0.51)
    assert again.test.mean == pytest.approx(0.4)
    assert again.reported == found.samplers["random"].best.value
    assert found.noise.spread == pytest.approx(0.01)
    assert asked[0] == ("e", dict(found.samplers["random"].best.config), [1_000_000, 1_000_001, 1_000_002])
    assert tables.retrained(found).rows[0][:3] == ["random", 3, again.reported]
    # It is kept: a later comparison, and the dashboard, show it as well.
    assert report.compare(storage, ["e"]).experiments[0].samplers["random"].retrained == again
    with pytest.raises(UsageError, match="at least 2"):
        report.compare(storage, ["e"], retrain=1, train=train)


def test_seeds_that_diverge_are_counted_and_break_nothing(storage):
    def train(experiment, config, seeds):
        values = [float("nan"), 0.5, 0.7, float("inf")]
        return [{"seed": s, "val_accuracy": v, "test_accuracy": v} for s, v in zip(seeds, values, strict=True)]

    fill(storage, "e", ("random",), 1, 4)
    found = report.compare(storage, ["e"], retrain=4, train=train)
    again = found.experiments[0].samplers["random"].retrained
    assert (again.validation.n, again.diverged) == (2, 2)
    assert again.validation.mean == pytest.approx(0.6)
    assert "NaN" not in output.dumps(found)
    with storage.engine.connect() as connection:
        stored = connection.execute(
            sa.text("SELECT value_json FROM study_user_attributes WHERE key = 'hpo:retrained'")
        ).scalar_one()
    assert "NaN" not in stored
    assert "Infinity" not in stored

    def diverging(experiment, config, seeds):
        return [{"seed": s, "val_accuracy": float("nan")} for s in seeds]

    assert (
        report.compare(storage, ["e"], retrain=2, train=diverging).experiments[0].samplers["random"].retrained is None
    )


def end_the_running(storage):
    with storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE trials SET state = 'PRUNED' WHERE state = 'RUNNING'"))


def attributes(storage, name):
    study = optuna.load_study(study_name=name, storage=storage)
    return study, storage.get_study_system_attrs(study._study_id)


def test_publishing_twice_writes_once(storage):
    fill(storage, "e", ("random", "tpe"), 2, 4, finished=3)
    assert publish(storage, "e") == []
    _, attrs = attributes(storage, "e/tpe/1")
    sizes = {
        key: sum(len(v) for k, v in attrs.items() if k.startswith(f"dashboard:plot_data:{key}:"))
        for key in IDS.values()
    }
    assert all(0 < size < 50_000 for size in sizes.values())
    assert attrs["dashboard:note_ver"] == 1
    publish(storage, "e")
    assert attributes(storage, "e/tpe/1")[1] == attrs
    end_the_running(storage)
    publish(storage, "e")
    assert attributes(storage, "e/tpe/1")[1]["dashboard:note_ver"] == 2


def test_a_persons_note_is_never_overwritten(storage):
    """Neither one of his own, nor ours with his words in it; a study without one gets ours."""
    fill(storage, "e", ("random", "tpe"), 2, 4, finished=3)
    own, _ = attributes(storage, "e/tpe/0")
    save_note(own, "do not touch the learning rate")
    assert publish(storage, "e") == ["e/tpe/0"]
    changed, _ = attributes(storage, "e/random/1")
    ours = get_note(changed)
    assert "samplers compared" in ours
    save_note(changed, ours.replace("samplers compared", "what I made of it"))
    end_the_running(storage)
    assert sorted(publish(storage, "e")) == ["e/random/1", "e/tpe/0"]
    assert get_note(attributes(storage, "e/tpe/0")[0]) == "do not touch the learning rate"
    assert "what I made of it" in get_note(attributes(storage, "e/random/1")[0])
    assert "not finished" not in get_note(attributes(storage, "e/random/0")[0])
