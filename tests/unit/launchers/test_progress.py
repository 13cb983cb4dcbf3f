"""How a run is shown: rates and time left from known numbers, plain lines for logs, JSON lines for machines."""

import contextlib
import gzip
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import hpo.launchers.progress
import hpo.launchers.time_left
from hpo.cli.support import failure_lines
from hpo.launchers.progress import (
    JsonProgress,
    LiveProgress,
    PlainProgress,
    Speed,
    choose_progress,
    format_seconds,
    status_table,
    summary_line,
)
from hpo.settings import Settings

COLUMNS = ["complete", "pruned", "running", "failed", "budget", "epochs", "best"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.5)
    for module in (hpo.launchers.progress, hpo.launchers.time_left):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def study(sampler: str, budget: dict[str, int], complete: int = 0, **more: Any) -> dict[str, Any]:
    states = {"complete": complete, "pruned": 0, "running": 0, "waiting": 0, "failed": 0}
    states |= {name: more.pop(name) for name in list(more) if name in states}
    entry = {"name": f"e/{sampler}/0", "sampler": sampler, "repeat": 0, "budget": budget, "states": states}
    return {**entry, "finished": False, "epochs": 0, "seconds": 0.0, "best": None, **more}


def status(*studies: dict[str, Any]) -> dict[str, Any]:
    return {"experiment": "e", "studies": list(studies)}


def best(value: float) -> dict[str, Any]:
    return {"trial": 0, "value": value, "config": {}}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3600, "1 h 00 min"), (7650, "2 h 07 min")],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_rate_and_time_left(clock: SimpleNamespace) -> None:
    speed = Speed()
    # What a launch before this one has done says nothing of the speed.
    assert speed.measure(status(study("tpe", {"trials": 40}, 10))) == (None, None)
    clock.now += 30
    assert speed.measure(status(study("tpe", {"trials": 40}, 10))) == (None, None)
    clock.now += 30
    # 5 in a minute, 25 are left.
    assert speed.measure(status(study("tpe", {"trials": 40}, 12, pruned=2, failed=1))) == (5.0, 300.0)
    clock.now += 60
    assert speed.measure(status(study("tpe", {"trials": 40}, 40, finished=True))) == (15.0, 0.0)


def test_time_left_of_unequal_budgets(clock: SimpleNamespace) -> None:
    """A study of 54 trials takes twice as long as one of 27."""
    speed = Speed()
    speed.measure(status(study("grid", {"trials": 27}), study("random_2x", {"trials": 54})))
    clock.now += 60
    now = status(study("grid", {"trials": 27}, 27, finished=True), study("random_2x", {"trials": 54}))
    assert speed.measure(now) == (27.0, 120.0)


def test_time_left_of_budgets_in_epochs(clock: SimpleNamespace) -> None:
    speed = Speed()
    budget = {"epochs": 100}
    speed.measure(status(study("tpe", budget), study("random", budget)))
    clock.now += 60
    # 10 trials of 4 epochs a minute; 160 epochs, so 40 trials, are left.
    now = status(study("tpe", budget, 2, pruned=6, epochs=20), study("random", budget, 2, epochs=20))
    assert speed.measure(now) == (10.0, 240.0)
    clock.now += 60
    # What is left of a finished study's epochs is less than a trial takes.
    now = status(study("tpe", budget, 10, finished=True, epochs=97), study("random", budget, 10, finished=True))
    assert speed.measure(now) == (10.0, 0.0)


def test_the_line_of_all_studies(clock: SimpleNamespace) -> None:
    speed = Speed()
    assert summary_line(status(study("tpe", {"trials": 8})), speed) == "0 finished (0 pruned), 0 running"
    clock.now += 60
    now = status(
        study("tpe", {"trials": 8}, 1, pruned=2, running=1), study("grid", {"trials": 4}, 2, running=3, failed=1)
    )
    assert summary_line(now, speed) == "6 finished (2 pruned), 4 running, 6.0 trials/min, 1 min 00 s left"


def test_plain_lines_where_something_changed(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    with PlainProgress(stream) as progress:
        progress.update(status(study("tpe", {"trials": 8})))
        clock.now += 2
        progress.update(status(study("tpe", {"trials": 8}, 1)))  # too soon after the first
        clock.now += 3
        progress.update(status(study("tpe", {"trials": 8}, running=1)))
        progress.line("worker 0 was ended by SIGKILL; another takes its place")
        clock.now += 5
        progress.update(status(study("tpe", {"trials": 8}, running=1)))  # nothing new
        clock.now += 5
        progress.update(
            status(study("tpe", {"trials": 8}, 3, best=best(0.5)), study("grid", {"trials": 8}, 2, best=best(0.25)))
        )
        clock.now += 15
        progress.update(status(study("tpe", {"trials": 8}, 10, best=best(0.123456789), finished=True)))
    assert stream.getvalue().splitlines() == [
        "0 finished (0 pruned), 0 running",
        "0 finished (0 pruned), 1 running, 40 s left",
        "worker 0 was ended by SIGKILL; another takes its place",
        "5 finished (0 pruned), 0 running, 20.0 trials/min, 28 s left, best of the studies 0.25 to 0.5",
        "10 finished (0 pruned), 0 running, 20.0 trials/min, 0 s left, best of the studies 0.123457",
    ]


def test_json_lines(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = status(study("tpe", {"trials": 8})), status(study("tpe", {"trials": 8}, 1, best=best(1e-300)))
    with choose_progress(as_json=True) as progress:
        assert isinstance(progress, JsonProgress)
        progress.update(first)
        progress.update(first)
        progress.line('worker 0 said:\n    "ü" and \x1b[31m')
        progress.update(second)
    output = capsys.readouterr()
    assert output.err == ""
    assert [json.loads(line) for line in output.out.splitlines()] == [
        first,
        {"event": 'worker 0 said:\n    "ü" and \x1b[31m'},
        second,
    ]


def test_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    progress = choose_progress(as_json=False)
    assert type(progress) is PlainProgress
    progress.line("on standard error")
    assert capsys.readouterr() == ("", "on standard error\n")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert type(choose_progress(as_json=False)) is LiveProgress


def test_a_table_on_a_terminal(clock: SimpleNamespace) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    with LiveProgress(console) as progress:
        progress.update(status(study("tpe", {"trials": 8}, 3, pruned=1, epochs=17, best=best(0.98765432))))
        progress.line("[red]not markup[/red]")
        progress._live.refresh()
    shown = screen.getvalue()
    row = next(line for line in shown.splitlines() if "tpe/0" in line)
    assert row.split()[1:] == ["3", "1", "0", "0", "8", "trials", "17", "0.987654"]
    assert "[red]not markup[/red]" in shown
    assert "4 finished (1 pruned), 0 running" in shown


def thirty() -> dict[str, Any]:
    """Three samplers of ten repeats."""
    studies = []
    for sampler in ("grid", "random", "tpe"):
        for repeat in range(10):
            one = study(sampler, {"trials": 20}, repeat, running=1, epochs=repeat, best=best(repeat / 10))
            studies.append({**one, "repeat": repeat, "name": f"e/{sampler}/{repeat}", "finished": repeat < 4})
    return status(*studies)


def drawn(content: Any, width: int = 80) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=width, color_system=None).print(content)
    return [line.rstrip() for line in screen.getvalue().splitlines() if line.strip()]


def test_repeats_are_folded_into_a_row_for_each_sampler() -> None:
    lines = drawn(status_table(thirty()))
    assert lines[0] == "e"
    assert lines[1].split() == ["sampler", "finished", *COLUMNS]
    assert [line.split() for line in lines[2:]] == [
        [name, "4/10", "45", "0", "10", "0", "200", "trials", "45", "0.9"] for name in ("grid", "random", "tpe")
    ]
    assert all("…" not in line and "..." not in line for line in lines)
    downwards = drawn(status_table({**thirty(), "direction": "minimize"}))
    assert downwards[2].split()[-1] == "0"


def test_verbose_unfolds_them() -> None:
    lines = drawn(status_table(thirty(), verbose=True))
    assert lines[1].split() == ["study", *COLUMNS]
    assert [line.split()[0] for line in lines[2:4]] == ["grid/0", "grid/1"]
    assert len(lines) == 32


@pytest.mark.parametrize("verbose", [False, True])
def test_the_live_table_fits_a_small_terminal(clock: SimpleNamespace, verbose: bool) -> None:
    """The line with what is left is the last one, and must not fall off."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24, color_system=None)
    with LiveProgress(console, verbose=verbose) as progress:
        progress.update(thirty())
        progress._live.refresh()
        assert "135 finished (0 pruned), 30 running" in screen.getvalue()
    assert "..." not in screen.getvalue()


def test_the_live_view_names_workers_and_failures(clock: SimpleNamespace) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, height=24, color_system=None)
    running = [{"study": "tpe/0", "trial": n, "worker": "here:41:1:a", "epochs": 3} for n in range(20)]
    running += [{"study": "grid/1", "trial": 7, "worker": "here:42:1:b", "epochs": 12}]
    with LiveProgress(console) as progress:
        progress.update(thirty())
        later = thirty()
        reason = "ValueError: " + "long " * 30
        later["studies"][3] |= {"failures": [{"trial": 5, "reason": reason, "log": "here:/home/u/logs/e-worker-1.log"}]}
        progress.update({**later, "running": running})
        progress._live.refresh()
    lines = screen.getvalue().replace("\r", "").splitlines()
    assert any(line.startswith("worker 41  20 trials: tpe/0 #0 epoch 3, ") for line in lines)
    assert any(line.startswith("worker 42  grid/1 #7 epoch 12") for line in lines)
    assert any(
        "trial 5 failed: ValueError: long" in line and line.endswith("/home/u/logs/e-worker-1.log") for line in lines
    )
    assert max(len(line) for line in lines if "\x1b" not in line) <= 80


def test_failures_alike_are_one_line_and_warnings_of_workers_stand_above(clock: SimpleNamespace) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, height=30, color_system=None)
    with LiveProgress(console) as progress:
        progress.update(thirty())
        later = thirty()
        later["studies"][3] |= {
            "failures": [
                *({"trial": n, "reason": f"ValueError: size {n} does not fit", "log": None} for n in (5, 9, 17)),
                {"trial": 18, "reason": "OSError: no file", "log": None},
            ]
        }
        progress.update({**later, "warnings": ["2 other workers use GPU 0 as well", "an old option", "a third one"]})
        progress._live.refresh()
    lines = screen.getvalue().replace("\r", "").splitlines()
    assert len({line for line in lines if "does not fit" in line}) == 1
    assert any("failed: the same error again (3 times): ValueError: size" in line for line in lines)
    assert any(line.endswith("trial 18 failed: OSError: no file") for line in lines)
    assert "warning: 2 other workers use GPU 0 as well" in lines
    assert "warning: an old option" in lines
    assert "warning: a third one" not in lines


def test_what_does_not_fit_is_counted() -> None:
    lines = drawn(status_table(thirty(), verbose=True, most_rows=10))
    assert len(lines) == 12
    assert lines[-1] == "21 more"
    # Those that are not finished stay.
    assert lines[2].split()[0] == "grid/4"


RECORDED = sorted((Path(__file__).parents[2] / "data").glob("statuses-*.json.gz"))


def test_there_are_recorded_runs() -> None:
    assert len(RECORDED) == 2


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_the_time_left_is_within_a_third_of_the_truth(clock: SimpleNamespace, path: Path) -> None:
    """Recorded runs of the demo (benchmarks/record_status.py), on a machine whose load changed while they ran.

    From a fifth of the time on, and within 5 seconds near the end; one look in seven may be wrong.
    """
    rows = json.loads(gzip.decompress(path.read_bytes()))
    end, speed, wrong, looked = rows[-1][0], Speed(), [], 0
    for seconds, recorded in rows:
        clock.now = seconds
        left = speed.measure(recorded)[1]
        truth = end - seconds
        if seconds < end / 5:
            continue
        assert left is not None
        looked += 1
        if abs(left - truth) > max(truth / 3, 5.0):
            wrong.append((seconds, left, truth))
    assert looked > 10
    assert len(wrong) <= looked / 7, wrong


@pytest.mark.parametrize(("error", "erased"), [(None, True), (KeyboardInterrupt, False), (ValueError, False)])
def test_the_last_table_stays_if_the_run_is_interrupted(
    clock: SimpleNamespace, error: type[BaseException] | None, erased: bool
) -> None:
    screen = io.StringIO()
    progress = LiveProgress(Console(file=screen, force_terminal=True, width=80, color_system=None))
    with contextlib.suppress(ValueError, KeyboardInterrupt), progress:
        progress.update(thirty())
        progress._live.refresh()
        if error is not None:
            raise error
    # What erases a line on a terminal, after the last word of the table.
    assert ("\x1b[2K" in screen.getvalue().rpartition("running")[2]) == erased


def failed(*reasons: str, log: str | None = "here:/logs/e@1-0.log") -> list[dict[str, Any]]:
    return [{"trial": number, "reason": reason, "log": log} for number, reason in enumerate(reasons)]


def test_a_failure_is_a_line_with_its_reason_and_log(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.update(status(study("tpe", {"trials": 8}, failures=failed("of an earlier launch"))))
    later = failed("of an earlier launch", "KeyError: 'x'\nmore", "KeyError: 'x'\nmore")
    progress.update(status(study("tpe", {"trials": 8}, failures=later)))
    progress.update(status(study("tpe", {"trials": 8}, failures=[*later, *failed("no log", log=None)])))
    assert stream.getvalue().splitlines()[1:] == [
        "tpe/0, trial 1 failed: KeyError: 'x' (log: here:/logs/e@1-0.log)",
        "tpe/0, trial 0 failed: no log",
    ]


def test_many_reasons_are_not_all_printed(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.update(status(study("tpe", {"trials": 80})))
    progress.update(status(study("tpe", {"trials": 80}, failures=failed(*(chr(97 + i) * 3 for i in range(26))))))
    assert stream.getvalue().count("failed:") == 5


def test_reasons_that_differ_in_numbers_and_paths_are_one(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.update(status(study("tpe", {"trials": 8})))
    same = failed("OSError: 0x7f12 in /a/b/000001", "OSError: 0x7f13 in /a/b/000002")
    progress.update(status(study("tpe", {"trials": 8}, failures=same)))
    assert stream.getvalue().count("failed:") == 1
    of = study("tpe", {"trials": 8}, failures=[{"worker": "w", **failure} for failure in same], failed=2, refused=0)
    lines = failure_lines({"experiment": "e", **status(of)}, Settings())
    assert "  OSError: 0x7f13 in /a/b/000002" in lines
    assert "    tpe/0, trial 1, 2 trials failed so; log: here:/logs/e@1-0.log" in lines
    assert not any("000001" in line for line in lines)


def test_time_left_of_budgets_in_time(clock: SimpleNamespace) -> None:
    speed = Speed()
    budget = {"trials": 40, "seconds": 90.0}
    one = study("tpe", budget, running=2, seconds_left=90.0)
    # Known before anything has finished; a study that does not run yet comes after.
    assert speed.measure(status(one)) == (None, 90.0)
    assert speed.measure(status(one, study("random", budget, running=1, seconds_left=80.0))) == (None, 90.0)
    assert speed.measure(status(one, study("random", budget, seconds_left=80.0))) == (None, 170.0)
    assert "90" not in summary_line(status(study("tpe", {"trials": 40}, running=2), one), Speed())
    clock.now += 60
    # 36 trials at 4 a minute would take longer than there is time; 4 a second do not.
    assert speed.measure(status(study("tpe", budget, 4, running=2, seconds_left=30.0))) == (4.0, 30.0)
    clock.now += 60
    assert speed.measure(status(study("tpe", budget, 39, running=1, seconds_left=30.0)))[1] == pytest.approx(60 / 35)
    alone = study("tpe", {"seconds": 90.0}, 8, running=2, seconds_left=30.0)
    assert speed.measure(status(alone)) == (4.0, 30.0)
    assert summary_line(status(alone), speed).endswith("4.0 trials/min, 30 s left")
    assert "1 min 30 s" in str(list(status_table(status(alone)).columns[5].cells))
