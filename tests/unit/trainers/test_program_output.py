"""How metrics are read out of what a program writes."""

import math
import re

import pytest

from hpo.trainers.program_output import LONGEST_LINE, LineSplitter, MetricReader


def epochs(*lines: str, patterns: dict[str, str] | None = None, is_json: bool = False) -> list[tuple[int, dict]]:
    reader = MetricReader("val_acc", {name: re.compile(text) for name, text in (patterns or {}).items()})
    return [found for line in lines if (found := reader.read(line, is_json=is_json)) is not None]


def test_lines_out_of_pieces():
    splitter = LineSplitter()
    assert list(splitter.lines(b"one\ntw")) == ["one"]
    assert list(splitter.lines(b"o\r\n10%\r20%\r")) == ["two", "10%", "20%"]
    assert splitter.last() == ""
    assert list(splitter.lines(b"\xff\xfe half")) == []
    assert splitter.last() == "\\xff\\xfe half"


def test_ten_megabytes_without_an_end():
    splitter = LineSplitter()
    pieces = [line for _ in range(160) for line in splitter.lines(b"x" * 65_536)]
    assert {len(piece) for piece in pieces} == {LONGEST_LINE}
    assert sum(map(len, pieces)) + len(splitter.last()) == 160 * 65_536
    assert {len(piece) for piece in LineSplitter().lines(b"y" * (2 * LONGEST_LINE) + b"\n")} == {LONGEST_LINE}


def test_json_lines():
    lines = ['{"val_acc": 0.5, "loss": 1}', "text", '{"val_acc": 0.6, "epoch": 5}', '{"loss": 3}', '{"val_acc": 1}']
    assert epochs(*lines) == [
        (1, {"val_acc": 0.5, "loss": 1.0}),
        (5, {"val_acc": 0.6}),
        (6, {"loss": 3.0, "val_acc": 1.0}),
    ]


def test_expressions():
    patterns = {"val_acc": r"val acc[:=]\s*([0-9.]+)", "loss": r"loss ([0-9a-z.]+)", "epoch": r"^epoch (\d+)"}
    lines = ["epoch 3, loss 0.25, val acc: 0.5", "loss nan", "val acc=0.75", "val acc: 0.8.1"]
    found = epochs(*lines, patterns=patterns)
    assert found[0] == (3, {"val_acc": 0.5, "loss": 0.25})
    assert found[1][0] == 4
    assert math.isnan(found[1][1]["loss"])
    assert found[2:] == []  # "0.8.1" is no number


def test_the_same_or_an_earlier_epoch_is_ignored():
    reader = MetricReader("val_acc")
    lines = ['{"val_acc": 1, "epoch": 2}', '{"val_acc": 2, "epoch": 2}', '{"val_acc": 3, "epoch": 1}']
    assert [reader.read(line) for line in lines] == [(2, {"val_acc": 1.0}), None, None]
    assert len(reader.notes) == 1
    assert "a report of epoch 2 came after that of epoch 2" in reader.notes[0]


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ('{"val_acc": "0.5"}', "val_acc = '0.5' is no number; it is ignored"),
        ('{"val_acc": true}', "val_acc = True is no number"),
        ('{"val_acc": [1]}', "val_acc = [1] is no number"),
        ('{"val_acc": 0.5, "epoch": 1.5}', "epoch = 1.5 is no whole number"),
        ('{"val_acc": 0.5', "a line that is no JSON is ignored"),
        ("[" * 100_000, "a line that is no JSON is ignored"),
    ],
)
def test_what_is_not_recognized_is_noted(line: str, note: str):
    reader = MetricReader("val_acc")
    reader.read(line, is_json=True)
    assert note in reader.notes[0]


def test_infinity_and_huge_numbers_are_reports():
    found = epochs('{"val_acc": Infinity}', '{"val_acc": NaN}', '{"val_acc": 1' + "0" * 400 + "}")
    assert found[0] == (1, {"val_acc": math.inf})
    assert math.isnan(found[1][1]["val_acc"])
    assert found[2] == (3, {"val_acc": math.inf})


def test_what_was_looked_for_and_what_came_nearest():
    reader = MetricReader("val_acc", {"val_acc": re.compile(r"val acc: ([0-9.]+)")})
    for line in [
        "starting",
        *(f"step {n} of 9000" for n in range(50)),
        "Validation accuracy = 0.93",
        "val_accuracy 0.9",
    ]:
        assert reader.read(line) is None
    text = reader.explanation()
    assert (
        "it never reported 'val_acc'; looked for lines that match 'val acc: ([0-9.]+)', hpo.report(val_acc=…)" in text
    )
    assert "val_accuracy 0.9" in text.partition("the nearest lines: ")[2]
    assert reader.last_lines[-1] == "val_accuracy 0.9"


def test_an_expression_sees_the_start_of_a_long_line_only():
    """Else one line may take an expression minutes."""
    reader = MetricReader("x", {"x": re.compile(r"(a+)+([0-9])")})
    assert reader.read(" " * 5000 + "a1") is None
