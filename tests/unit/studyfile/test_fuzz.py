"""Whatever a file holds, reading it gives a study file or its mistakes, never anything else."""

import copy
import datetime
import json
import tomllib

import pydantic
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo.errors import StudyFileError
from hpo.studyfile.load import load_study_file, parse_study_file, study_file_from_json
from hpo.trainers.protocol import Config
from hpo.trainers.registry import TRAINERS, TrainerEntry
from tests.unit.study_files import study

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)

KEYS = st.sampled_from(
    [
        "name",
        "trainer",
        "metric",
        "direction",
        "value",
        "samplers",
        "repeats",
        "budget",
        "pruner",
        "seed",
        "target",
        "audit",
        "slots",
        "fixed",
        "space",
        "try_first",
        "provenance",
        "low",
        "high",
        "log",
        "step",
        "grid",
        "choices",
        "when",
        "label",
        "lr",
        "beta",
        "width",
        "scheduler",
        "step_size",
        "epochs",
        "optimizer",
        "trials",
        "wrapped",
        "patience",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2**53, 2**63, 2**64, 10**400, 1e308, -0.0])
    | st.floats()
    | st.text(max_size=8)
    | KEYS
    | st.sampled_from(["grid", "tpe", "cmaes", "asha", "hyperband", "patient", "toy", "bare", "step", "val_loss", ""])
    | st.dates()
    | st.datetimes(timezones=st.just(datetime.UTC))
    | st.times()
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)
FULL = study(
    samplers=["grid", {"name": "tpe", "label": "five", "n_startup_trials": 5}, "qmc"],
    pruner={"name": "patient", "patience": 2, "wrapped": {"name": "asha", "min_epochs": 2}},
    fixed={"epochs": 8, "optimizer": {"kind": "adam", "eps": 1e-6}, "milestones": [2, 4]},
    space={
        "lr": {"low": 1e-3, "high": 1.0, "log": True, "grid": 2},
        "width": {"low": 8, "high": 64, "step": 8},
        "scheduler": {"choices": ["constant", "step"], "grid": True},
        "step_size": {"low": 1, "high": 4, "when": {"scheduler": ["step"]}, "grid": [1, 4]},
        "nesterov": [True, False],
    },
    try_first=[{"lr": 0.5, "width": 16}],
    provenance={"value": 0.5},
)


def outcome(read):
    """What ``read`` returns, or None and the mistakes that it raises."""
    try:
        return read(), None
    except StudyFileError as error:
        return None, error


def check(data):
    """Reads ``data``; what is read can be stored and read again."""
    study_file, error = outcome(lambda: parse_study_file(data, "fuzz"))
    if error is not None:
        assert error.mistakes
        assert all(mistake.strip() and "\n" not in mistake for mistake in error.mistakes)
        assert str(error).startswith("fuzz: ")
        return None
    stored = json.loads(json.dumps(study_file.to_json(), allow_nan=False))
    assert study_file_from_json(stored) == study_file
    assert study_file.differences(study_file_from_json(stored)) == []
    assert study_file.is_extension_of(study_file)
    return study_file


def places(data, path=()):
    """The paths of all values in nested tables and lists."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(data, path):
    for key in path:
        data = data[key]
    return data


def test_the_file_that_is_mutated_is_right():
    assert check(copy.deepcopy(FULL)) is not None


@QUICK
@given(st.dictionaries(KEYS | st.text(max_size=4), VALUES, max_size=10))
def test_arbitrary_tables(data):
    check(data)


@QUICK
@given(st.data())
def test_changed_values(data):
    changed = copy.deepcopy(FULL)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(places(changed), key=str)))
        at(changed, path[:-1])[path[-1]] = data.draw(VALUES)
    check(changed)


@QUICK
@given(st.data())
def test_left_out_and_added_keys(data):
    changed = copy.deepcopy(FULL)
    path = data.draw(st.sampled_from(sorted(places(changed), key=str)))
    del at(changed, path[:-1])[path[-1]]
    tables = [(), *(place for place in places(changed) if isinstance(at(changed, place), dict))]
    at(changed, data.draw(st.sampled_from(tables)))[data.draw(KEYS | st.text(max_size=4))] = data.draw(VALUES)
    check(changed)


@QUICK
@given(st.data())
def test_copied_values(data):
    """A value that is right in one place, put in another."""
    changed = copy.deepcopy(FULL)
    target, source = (data.draw(st.sampled_from(sorted(places(changed), key=str))) for _ in range(2))
    value = copy.deepcopy(at(changed, source))
    at(changed, target[:-1])[target[-1]] = value
    check(changed)


@settings(QUICK, max_examples=100)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "study.toml"
    path.write_bytes(content)
    study_file, error = outcome(lambda: load_study_file(path))
    assert study_file is None
    assert error.mistakes


@settings(QUICK, max_examples=120)
@given(data=st.data())
def test_damaged_text(data, tmp_path_factory):
    text = tomli_w.dumps(FULL).encode()
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    path = tmp_path_factory.mktemp("fuzz") / "study.toml"
    path.write_bytes(text[:start] + data.draw(st.binary(max_size=6)) + text[end:])
    study_file, error = outcome(lambda: load_study_file(path))
    assert study_file_from_json(study_file.to_json()) == study_file if error is None else error.mistakes


def test_depth_and_size_do_not_break_the_reader():
    deep: object = 1
    for _ in range(5_000):
        deep = [deep]
    huge = tomllib.loads(f"x = 0x{'f' * 6_000}")["x"]
    for key in FULL:
        for value in (deep, huge, {"a": deep}, {"a": huge}, [huge], float("nan")):
            assert check({**copy.deepcopy(FULL), key: value}) is None
    for key in ("lr", "width", "scheduler"):
        for value in (deep, huge, {"low": huge, "high": deep}, {"choices": deep}, {"low": 1, "high": 2, "grid": deep}):
            space = {**copy.deepcopy(FULL["space"]), key: value}
            assert check({**copy.deepcopy(FULL), "space": space}) is None
    wrapped: object = "median"
    for _ in range(5_000):
        wrapped = {"name": "patient", "patience": 1, "wrapped": wrapped}
    assert check({**copy.deepcopy(FULL), "pruner": wrapped}) is None


def test_a_long_chain_of_conditions():
    """Each of 100 parameters under a condition on the one before it, which the file names after it."""
    num = 100
    config = pydantic.create_model("Chain", __base__=Config, **{f"p{index}": (int, 1) for index in range(num)})
    TRAINERS["chain"] = TrainerEntry("chain", config, TRAINERS["toy"].build, "a long chain")
    try:
        space = {f"p{index}": {"low": 1, "high": 2, "when": {f"p{index - 1}": 2}} for index in range(num - 1, 0, -1)}
        data = study(trainer="chain", fixed={}, space={**space, "p0": [1, 2]})
        assert parse_study_file(data, "chain").space.order[-1] == f"p{num - 1}"
    finally:
        del TRAINERS["chain"]
