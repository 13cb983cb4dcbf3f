"""What a person does to an experiment with Optuna's own clients: every view gives one answer, his things stay his."""

import json
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState, create_trial

from hpo.compare.comparison import compare_studies
from hpo.compare.load import Loader
from hpo.dashboard.live import Live
from hpo.database.storage import Storage
from hpo.errors import CheckpointError, ExperimentError
from hpo.experiment.deletion import contents, delete_experiment
from hpo.experiment.experiment import create_experiment, experiment_names, load_experiment
from hpo.experiment.results import best_trials
from hpo.experiment.status import is_finished, snapshot
from hpo.files.artifacts import PREFIX, ArtifactFolder
from hpo.files.checkpoints import CheckpointFolder
from hpo.settings import Settings
from hpo.studyfile.load import parse_study_file
from tests.integration.trials_support import claim_one, finish
from tests.searches import fill
from tests.unit.study_files import study as study_table


def study_of(storage: Storage, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage, pruner=optuna.pruners.NopPruner())


def answers(storage: Storage, name: str) -> dict[str, list[tuple[int, float]]]:
    """Best trial and value of the sampler 'random' in every view."""
    experiment = load_experiment(storage, name)
    best = snapshot(experiment)["studies"][0]["best"]
    exported = best_trials(experiment, "random")[0]
    compared = compare_studies(Loader(storage).load(name)).samplers["random"].best
    listed = {row.name: row for row in Live(storage).experiments()[1]}[name]
    assert compared is not None
    return {
        "status": [(best["trial"], best["value"])],
        "export": [(exported.number, exported.value)],
        "compare": [(compared.number, compared.value)],
        "dashboard": [(exported.number, listed.best)],
    }


def one_answer(storage: Storage, name: str) -> tuple[int, float]:
    found = {answer for view in answers(storage, name).values() for answer in view}
    assert len(found) == 1, found
    return found.pop()


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_finished_trials_that_a_person_adds_are_no_results(storage: Storage, moment: str) -> None:
    """Neither plain ones, nor ones with all our attributes, nor a copy of one of ours; the budget stays."""
    if moment == "before":
        experiment, _ = create_experiment(storage, parse_study_file(study_table(name="e", budget={"trials": 3}), "f"))
        study = study_of(storage, experiment.studies[0].name)
        study.add_trial(create_trial(value=-99.0))
        for _ in range(3):
            claim = claim_one(storage, experiment.study_ids[0])
            assert finish(storage, claim.trial_id, 0.1 * (claim.lineage + 1))
        assert one_answer(storage, "e") == (1, pytest.approx(0.1))
        added = 1
    else:
        fill(storage, "e", ("random",), 1, 6, finished=4 if moment == "during" else None)
        before = one_answer(storage, "e")
        study = study_of(storage, "e/random/0")
        ours = study.trials[0]
        attrs = {"lineage": 0, "attempt": 7, "config": {"lr": 1.0}, "seed": 3, "epochs": "many", "seconds": "long"}
        for trial in (create_trial(value=99.0), create_trial(value=99.0, user_attrs=attrs), ours):
            study.add_trial(trial)
        study.add_trial(create_trial(state=TrialState.FAIL))
        assert one_answer(storage, "e") == before
        added = 4
    status = snapshot(load_experiment(storage, "e"))["studies"][0]
    assert status["imported"] == added
    assert status["states"]["failed"] == 0
    assert status["retried"] == 0
    assert status["finished"] is (moment != "during")
    comparison = compare_studies(Loader(storage).load("e"))
    assert comparison.samplers["random"].cost.retried == 0
    assert any("added by hand" in note for note in comparison.notes)


def test_attributes_that_a_person_has_made_something_else_of(storage: Storage) -> None:
    fill(storage, "e", ("random",), 1, 4)
    study = study_of(storage, "e/random/0")
    for key in ("seconds", "epochs", "start_epoch", "lineage", "attempt", "metrics", "trained_on"):
        with storage.engine.begin() as connection:
            connection.execute(
                sa.text("UPDATE trial_user_attributes SET value_json = :v WHERE trial_id = :t AND key = :k"),
                {"v": json.dumps("mine"), "t": study.trials[0]._trial_id, "k": key},
            )
    assert is_finished(snapshot(load_experiment(storage, "e")))
    one_answer(storage, "e")


def test_a_copied_study_is_the_persons(storage: Storage, tmp_path: Path) -> None:
    """It carries all our attributes, but is in no view; deleting the experiment leaves it and the files it shows."""
    fill(storage, "e", ("random",), 1, 4)
    settings = Settings(home=tmp_path)
    folder = ArtifactFolder(settings.artifacts)
    study = study_of(storage, "e/random/0")
    kept, gone = "11111111-2222-3333-4444-555555555555", "66666666-2222-3333-4444-555555555555"
    for artifact_id in (kept, gone):
        (tmp_path / "file").write_text(artifact_id)
        with (tmp_path / "file").open("rb") as file:
            folder.write(artifact_id, file)
    storage.set_study_system_attr(
        study._study_id, PREFIX + kept, json.dumps({"artifact_id": kept, "filename": "a.png", "mimetype": "image/png"})
    )
    optuna.copy_study(from_study_name="e/random/0", from_storage=storage, to_storage=storage, to_study_name="mine")
    storage.set_study_system_attr(
        study._study_id, PREFIX + gone, json.dumps({"artifact_id": gone, "filename": "b.png", "mimetype": "image/png"})
    )
    before = one_answer(storage, "e")
    assert len(load_experiment(storage, "e").studies) == 1
    assert compare_studies(Loader(storage).load("e")).samplers["random"].repeats == (0,)
    assert one_answer(storage, "e") == before
    found = contents(storage, "e")
    assert (len(found.study_ids), found.num_trials, found.num_imported) == (1, 4, 0)
    assert not delete_experiment(found, settings)
    assert experiment_names(storage) == []
    assert [trial.state for trial in study_of(storage, "mine").trials]
    assert {path.name for path in settings.artifacts.iterdir()} == {kept}
    with pytest.raises(ExperimentError, match="there is none yet"):
        load_experiment(storage, "e")


def test_a_study_that_got_another_name_is_the_same_study(storage: Storage) -> None:
    table = study_table(name="e", samplers=["random"], budget={"trials": 3})
    experiment, _ = create_experiment(storage, parse_study_file(table, "f"))
    claim = claim_one(storage, experiment.study_ids[0])
    assert finish(storage, claim.trial_id, 0.5)
    with storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE studies SET study_name = 'my best run'"))
    again, _ = create_experiment(storage, parse_study_file({**table, "budget": {"trials": 5}}, "f"))
    assert again.study_ids == experiment.study_ids
    assert again.studies[0].name == "my best run"
    assert one_answer(storage, "e") == (0, 0.5)
    assert len(storage.get_all_studies()) == 1


def test_a_study_that_somebody_deletes_has_nothing_left_to_do(storage: Storage) -> None:
    table = study_table(name="e", samplers=["random", "tpe"], budget={"trials": 1})
    experiment, _ = create_experiment(storage, parse_study_file(table, "f"))
    for study_id in experiment.study_ids:
        assert finish(storage, claim_one(storage, study_id).trial_id)
    storage.delete_study(experiment.study_ids[1])
    status = snapshot(experiment)
    assert is_finished(status)
    assert [study["deleted"] for study in status["studies"]] == [False, True]
    again, _ = create_experiment(storage, parse_study_file(table, "f"))
    assert len(again.studies) == 2
    assert again.study_ids[0] == experiment.study_ids[0]
    assert not is_finished(snapshot(again))


@pytest.mark.parametrize("key", ["../../precious", "/etc", "a/b", "", ".", "..", "x" * 65, "ü", 7, None])
def test_a_key_from_the_database_never_becomes_a_path(storage: Storage, tmp_path: Path, key: object) -> None:
    fill(storage, "e", ("random",), 1, 2)
    (tmp_path / "precious").mkdir()
    study = study_of(storage, "e/random/0")
    storage.set_study_user_attr(study._study_id, "hpo:key", key)
    storage.set_study_system_attr(
        study._study_id,
        f"{PREFIX}../../precious",
        json.dumps({"artifact_id": "../../precious", "filename": "x", "mimetype": "text/plain"}),
    )
    with pytest.raises(CheckpointError, match="hpo:key"):
        CheckpointFolder(tmp_path / "home" / "checkpoints", key)  # type: ignore[arg-type]
    found = contents(storage, "e")
    assert found.keys == []
    assert found.artifact_hosts == {}
    delete_experiment(found, Settings(home=tmp_path / "home"))
    assert (tmp_path / "precious").is_dir()


def test_values_that_are_not_finite_are_no_results(storage: Storage) -> None:
    fill(storage, "e", ("random",), 1, 4)
    best = one_answer(storage, "e")
    with storage.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE trial_values SET value = NULL, value_type = 'INF_POS' "
                "WHERE trial_id = (SELECT trial_id FROM trials WHERE number = :n)"
            ),
            {"n": best[0]},
        )
    assert one_answer(storage, "e") != best
