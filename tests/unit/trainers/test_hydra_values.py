"""Values in overrides of Hydra's: Hydra's own parser, and OmegaConf, read what was written."""

import random
from typing import Any

import pytest

from hpo.trainers.hydra_values import hydra_value
from hpo.trainers.program_command import command_line
from hpo.trainers.protocol import Run

TEXTS = [
    *(
        "a b",
        "a,b",
        "a=b",
        "it's",
        'say "x"',
        "{a}",
        "[1,2]",
        "1",
        "1e-3",
        "true",
        "NULL",
        "nan",
        "",
        "ü",
        " a ",
        "0x1f",
    ),
    *(
        "\\",
        "a\\",
        "a\\'",
        "\\\\'x",
        "${y}",
        "\\${y}",
        "$y",
        "a:b",
        "range(1,2)",
        "a\nb",
        "\\\n",
        "~x",
        "!x",
        "c:\\dir\\",
    ),
    *("hinge", "resnet/18", "*.py", "log_loss", "-a", "+1", "#", "()", "x${oc.env:HOME}'\\"),
]
OTHERS: list[Any] = [
    *(1, -3, 1.5, 1e-7, True, False, None, float("inf"), float("-inf"), [], {}),
    [1, "a,b", None, [True, "x'y"]],
    {"a": 1, "b c": "d,e"},
]


def test_how_values_are_spelled() -> None:
    assert [hydra_value(value) for value in ["sgd", "a,b", "it's", "1", 0.1, None, [1, "x y"]]] == [
        *("sgd", "'a,b'", r"'it\'s'", "'1'", "0.1", "null", "[1,'x y']")
    ]
    values = {"model.lr": 0.1, "names": "a,b", "placed": "[1,2]"}
    run = Run(trial_folder=None)
    assert command_line(["t", "x={placed}"], "hydra", values, run) == ["t", "x=[1,2]", "model.lr=0.1", "names='a,b'"]


def read(value: Any) -> Any:
    """What a script reads at ``config.x`` if the override is on its command line."""
    omegaconf = pytest.importorskip("omegaconf")
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser").OverridesParser.create()
    config = omegaconf.OmegaConf.create({"x": None, "y": "another key"})
    omegaconf.OmegaConf.update(config, "x", parser.parse_override(f"x={hydra_value(value)}").value())
    found = config.x
    return omegaconf.OmegaConf.to_container(found, resolve=True) if omegaconf.OmegaConf.is_config(found) else found


@pytest.mark.parametrize("value", [*TEXTS, *OTHERS], ids=repr)
def test_hydra_reads_the_same_value(value: Any) -> None:
    found = read(value)
    assert found == value
    assert type(found) is type(value)


def test_hydra_reads_the_same_of_any_text() -> None:
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(draw.choice("ab1 ,='\"\\${}[]():~!#.-+*\n") for _ in range(draw.randint(0, 8)))
        assert read(text) == text
