"""Whatever becomes of an exported file, ``hpo train`` trains it or says what is wrong and where; nothing else."""

import contextlib
import copy
import io
import json
import os
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpo.cli import main
from hpo.database import attributes
from hpo.experiment.experiment import Experiment
from hpo.experiment.results import BestTrial
from hpo.export.files import as_text, exported
from hpo.machine import trained_on
from hpo.settings import Settings
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run
from hpo.trainers.registry import TRAINERS
from tests.unit.study_files import ToyConfig, read
from tests.unit.studyfile.test_fuzz import KEYS, QUICK, VALUES, at, places


@trainer("quick", metrics={"val_loss": "minimize", "val_accuracy": "maximize"})
def quick(config: ToyConfig, run: Run) -> Iterator[dict[str, float]]:
    """Two epochs, whatever the file says."""
    for epoch in range(2):
        yield {"val_loss": config.lr + run.seed % 7 + epoch, "val_accuracy": 0.5}


def content() -> dict[str, Any]:
    """What ``hpo export`` writes of a trial."""
    study_file = read(trainer="quick", name="a study")
    config = ToyConfig(lr=0.1, milestones=(2, 4), scheduler="step").model_dump(mode="json")
    attrs = {attributes.EPOCHS: 2, attributes.TRAINED_ON: trained_on("cpu", 1, 4)}
    best = BestTrial("a study/random/0", "random", 3, 4.1, config, config, 10, attrs)
    return exported(Experiment(None, study_file.to_json(), ()), best, Settings())  # type: ignore[arg-type]


FILE = content()
NULLS = {"seed": None, "value": None, "trained_on": {"threads": None}}
MORE_KEYS = KEYS | st.sampled_from(["trained_on", "threads", "slots", "value", "seed", "study", "experiment", "kind"])


def train(path: Path, *options: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``hpo train``; anything but an exit is raised."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(os, "environ", os.environ.copy())
        patch.setattr(sys, "argv", ["hpo", "train", str(path), *options])
        with pytest.raises(SystemExit) as ended:
            main.main()
    return ended.value.code, out.getvalue(), err.getvalue()


def check(path: Path) -> None:
    """Either it is trained, or each mistake is told on a line with its place."""
    code, out, err = train(path)
    if code == 0 or "reproduced" in out or "but for rounding" in out:
        assert "val_loss: " in out
        return
    assert code == 2, err
    first, *lines = err.rstrip("\n").split("\n")
    if "searches" in first:
        return
    assert first == f"error: {path}: {len(lines)} mistake{'s' if len(lines) > 1 else ''}"
    assert all(line.startswith("  ") and ":" in line for line in lines)


def as_file(folder: Path, data: dict[str, Any], form: str) -> Path:
    path = folder / f"best.{form}"
    if form == "json":
        path.write_text(json.dumps(data, default=str))
    else:
        try:
            path.write_text(tomli_w.dumps(data))
        except (TypeError, ValueError, AttributeError, UnicodeEncodeError):
            assume(False)  # TOML has no null, no list of mixed tables, and so on
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export-fuzz")


@pytest.mark.parametrize("form", ["toml", "json"])
def test_the_file_that_is_mutated_is_trained(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"best.{form}"
    path.write_text(as_text(FILE, form))
    assert (json.loads if form == "json" else tomllib.loads)(path.read_text()) == FILE
    code, out, _ = train(path)
    assert code == 0
    assert "reproduced: expected 4.1, obtained 4.1" in out
    check(path)


@pytest.mark.parametrize("form", ["toml", "json"])
@QUICK
@given(data=st.data())
def test_changed_values(form: str, data: st.DataObject, folder: Path) -> None:
    changed = copy.deepcopy(FILE)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(sorted(places(changed), key=str)))
        at(changed, path[:-1])[path[-1]] = data.draw(VALUES)
    check(as_file(folder, changed, form))


@pytest.mark.parametrize("form", ["toml", "json"])
@QUICK
@given(data=st.data())
def test_left_out_added_and_copied(form: str, data: st.DataObject, folder: Path) -> None:
    changed = copy.deepcopy(FILE)
    source, left_out = (data.draw(st.sampled_from(sorted(places(changed), key=str))) for _ in range(2))
    value = copy.deepcopy(at(changed, source))
    if data.draw(st.booleans()):
        del at(changed, left_out[:-1])[left_out[-1]]
    tables = [(), *(place for place in places(changed) if isinstance(at(changed, place), dict))]
    at(changed, data.draw(st.sampled_from(tables)))[data.draw(MORE_KEYS)] = value
    check(as_file(folder, changed, form))


@pytest.mark.parametrize("form", ["toml", "json"])
@settings(QUICK, max_examples=150)
@given(data=st.data())
def test_damaged_text(form: str, data: st.DataObject, folder: Path) -> None:
    text = as_text(FILE, form).encode()
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    inserted = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"1e999", b"-1", b'"\\ud800"', b"NaN", b"{}", b"null"])
    )
    path = folder / f"damaged.{form}"
    path.write_bytes(text[:start] + inserted + text[end:])
    check(path)


@pytest.mark.parametrize("form", ["toml", "json"])
def test_cut_short_anywhere(form: str, folder: Path) -> None:
    text = as_text(FILE, form).encode()
    path = folder / f"cut.{form}"
    for end in range(0, len(text), 7):
        path.write_bytes(text[:end])
        check(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", "ten", "provenance.seed: 'ten' is refused; expected a valid integer"),
        ("seed", -1, "provenance.seed: -1 is refused; expected greater than or equal to 0"),
        ("value", "high", "provenance.value: 'high' is refused; expected a valid number"),
        ("value", float("inf"), "provenance.value: inf is refused; expected a finite number"),
        ("study", 5, "provenance.study: 5 is refused; expected a valid string"),
        ("trained_on", "a laptop", "provenance.trained_on: 'a laptop' is refused; expected "),
        ("trained_on", {"threads": "all"}, "provenance.trained_on.threads: 'all' is refused; expected a valid integer"),
        (
            "trained_on",
            {"threads": 0},
            "provenance.trained_on.threads: 0 is refused; expected greater than or equal to 1",
        ),
        ("trained_on", {"slots": [1]}, "provenance.trained_on.slots: [1] is refused; expected a valid integer"),
    ],
)
def test_a_provenance_that_cannot_be_used(key: str, value: Any, said: str, tmp_path: Path) -> None:
    path = as_file(tmp_path, {**FILE, "provenance": {**FILE["provenance"], key: value}}, "toml")
    code, _, err = train(path)
    assert code == 2
    assert err.startswith(f"error: {path}: 1 mistake\n  {said}")


@pytest.mark.parametrize("provenance", [{}, {"value": 4}, {"note": "by hand", "trained_on": {"where": "here"}}, NULLS])
def test_a_provenance_that_says_little(provenance: dict[str, Any], tmp_path: Path) -> None:
    code, out, err = train(as_file(tmp_path, {**FILE, "provenance": provenance}, "json"))
    assert code == (1 if provenance.get("value") else 0), err
    assert ("not reproduced, off by 2.9, 72.50% of the value" in out) == (code == 1)


class Nothing(Config):
    epochs: int = 1


def test_a_trainer_that_does_not_yield_the_metric(tmp_path: Path) -> None:
    """Where a trainer does not say what it yields, only its first epoch can tell."""

    @trainer("silent")
    def silent(config: Nothing, run: Run) -> Iterator[dict[str, float]]:
        if config.epochs > 1:
            yield {"score": 1.0, "loss": 1.0 if config.epochs == 2 else "low"}  # type: ignore[dict-item]

    try:
        for epochs, metric, said in (
            (1, "loss", "error: the trainer 'silent' ended without yielding metrics of an epoch\n"),
            (2, "los", "error: 'x' cannot be trained: the trainer yields no 'los', only loss, score\n"),
            (3, "loss", "error: 'x' cannot be trained: the trainer yields 'low' as 'loss'; a number was expected\n"),
        ):
            data = {"name": "x", "trainer": "silent", "metric": metric, "direction": "minimize"}
            code, out, err = train(as_file(tmp_path, {**data, "fixed": {"epochs": epochs}}, "toml"))
            assert (code, out) == (2, "")
            assert err.endswith(said)
    finally:
        del TRAINERS["silent"]
