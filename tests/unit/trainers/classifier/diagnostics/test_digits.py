"""A classifier trained on real data and diagnosed from end to end, through what `hpo train --diagnose` calls."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from plotly.graph_objects import Figure

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.diagnostics.run import DIAGNOSES, diagnose
from hpo.trainers.classifier.diagnostics.trained import (
    diagnose_classifier,
    diagnosis_data,
    pattern_observer,
    train_and_diagnose,
)
from hpo.trainers.classifier.training import trained_network
from hpo.trainers.protocol import Run
from tests.unit.trainers_support import train

DIGITS = ClassifierConfig(
    dataset="digits",
    network="mlp",
    width_1=64,
    width_2=32,
    epochs=6,
    batch_size=32,
    lr=0.1,
    scheduler="multistep",
    milestones=(3,),
)


def test_a_digits_mlp_from_end_to_end(tmp_path: Path) -> None:
    reported: list[int] = []
    numbers = train_and_diagnose(
        DIGITS, Run(test="last"), tmp_path, report=lambda epoch, metrics: reported.append(epoch)
    )
    assert reported == [1, 2, 3, 4, 5, 6]
    assert numbers["skipped"] == {"regions": "the network reads more than one number"}
    assert set(DIAGNOSES) - set(numbers) == {"regions"}
    assert json.loads((tmp_path / "diagnostics.json").read_text()) == numbers
    assert {path.name for path in tmp_path.iterdir()} == {"diagnostics.json", *numbers["files"]}
    for name in numbers["files"]:
        path = tmp_path / name
        assert path.stat().st_size < 200_000
        if path.suffix == ".json":
            Figure(json.loads(path.read_text()))
        else:
            with Image.open(path) as image:
                image.verify()
    accuracy, mistakes = numbers["accuracy"], numbers["mistakes"]
    assert (accuracy["num_train"], accuracy["num_held_out"], accuracy["part"]) == (1197, 300, "test")
    assert accuracy["accuracy"] > 0.9
    # Two ways to count the same thing, and the trainer's own metrics for both sets.
    assert mistakes["num_mistakes"] == round(300 * (1 - accuracy["accuracy"]))
    assert len(mistakes["shown"]) == min(25, mistakes["num_mistakes"])
    last = numbers["history"]["epochs"][-1]
    assert accuracy["accuracy"] == last["test_accuracy"]
    assert accuracy["train_accuracy"] == last["train_set_accuracy"]
    assert accuracy["gap_points"] == pytest.approx(100 * (last["train_set_accuracy"] - last["test_accuracy"]))
    assert numbers["history"]["gap"]["accuracy"][-1] == last["train_set_accuracy"] - last["val_accuracy"]
    assert [drop["epoch"] for drop in numbers["history"]["drops"]] == [4]
    assert numbers["history"]["effective_lr"] == pytest.approx([1.0] * 3 + [0.1] * 3)
    assert numbers["sharpness"]["converged"]
    assert numbers["sharpness"]["value"] > 0
    plane = numbers["loss_plane"]
    # The trained network sits in the middle, below the rim.
    assert plane["plane"][10][10] == plane["first"][10] == plane["second"][10]
    assert plane["first"][10] < min(plane["first"][0], plane["first"][-1])
    assert [row["num_weights"] for row in numbers["weights"]] == [4096, 2048, 320, 6464]
    assert [layer["num_units"] for layer in numbers["activity"]["layers"]] == [64, 32]
    hamming = numbers["hamming"]
    # 38 batches of 32 in each of 6 epochs.
    assert (hamming["num_steps"], hamming["num_inputs"], hamming["num_units"]) == (228, 64, 96)
    # Report 5: large early, near 0 or 1 late.
    assert hamming["first_tenth"] > 1 > hamming["last_tenth"]


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    history, state = train(DIGITS.model_copy(update={"epochs": 4}), Run(seed=3))
    assert state is not None
    found = [diagnose_classifier(DIGITS, state, history, tmp_path / str(k), Run(seed=3)) for k in range(2)]
    assert found[0] == found[1]
    other = diagnose_classifier(DIGITS, state, history, tmp_path / "other", Run(seed=4))
    assert other["noise"] != found[0]["noise"]
    assert other["accuracy"] == found[0]["accuracy"]
    # Without a look at the test set, mistakes are those on the validation set; without an observer, no steps.
    assert found[0]["mistakes"]["part"] == "val"
    assert found[0]["skipped"]["hamming"] == "no steps were observed"


@pytest.mark.parametrize("batch_norm", [False, True])
def test_watching_does_not_change_the_training(batch_norm: bool) -> None:
    config = DIGITS.model_copy(update={"epochs": 4, "dropout": 0.2, "batch_norm": batch_norm})
    plain = train(config, Run())
    watched_run = Run()
    watched_run.observe = observer = pattern_observer(config, watched_run)
    watched = train(config, watched_run)
    assert watched[0] == plain[0]
    assert plain[1] is not None
    assert watched[1] is not None
    for name, value in plain[1]["network"].items():
        assert torch.equal(value, watched[1]["network"][name])
    assert observer is not None
    assert len(observer.distances) == 4 * 38


def test_the_line_of_report_5(tmp_path: Path) -> None:
    config = ClassifierConfig(dataset="line", network="relu_line", epochs=3, batch_size=32, lr=0.05, batch_norm=True)
    numbers = train_and_diagnose(config, Run(), tmp_path)
    assert numbers["skipped"] == {}
    regions = numbers["regions"]
    # Ten units in one layer: at most ten breakpoints.
    assert 2 <= regions["num_regions"] == len(regions["breakpoints"]) + 1 <= 11
    assert all(-2 < point < 2 for point in regions["breakpoints"])
    patterns = [region["pattern"] for region in regions["regions"]]
    assert {len(pattern) for pattern in patterns} == {10}
    # Each breakpoint is that of one unit.
    switched = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairwise(patterns)]
    assert switched == [1] * (len(patterns) - 1)
    assert (numbers["hamming"]["num_inputs"], numbers["hamming"]["num_steps"]) == (201, 96)
    assert {"patterns.png", "regions.png", "hamming.png"} <= set(numbers["files"])
    assert "mistakes.png" not in numbers["files"]


def test_a_network_that_diverged_says_so(tmp_path: Path) -> None:
    history, state = train(DIGITS.model_copy(update={"epochs": 4}), Run())
    assert state is not None
    state["network"]["1.weight"].fill_(math.nan)
    model = trained_network(DIGITS, state)
    numbers = diagnose(model, DIGITS, diagnosis_data(DIGITS, Run()), history, tmp_path)
    for name in ("noise", "sharpness", "loss_plane"):
        assert numbers["skipped"][name] == "the loss is not finite"
    assert numbers["accuracy"]["loss"] is None
    assert numbers["mistakes"]["num_mistakes"] > 200
    assert (tmp_path / "mistakes.png").is_file()


def test_a_convolutional_network_is_not_watched() -> None:
    config = ClassifierConfig(dataset="digits", network="cnn")
    assert pattern_observer(config, Run()) is None
