"""Lines of a worker's log name their trial, and an error that repeats is written whole once."""

import io
import logging
import warnings
from collections.abc import Iterator

import pytest

from hpo.worker.log_lines import LogLines


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = list(root.handlers)
    level, ours = root.level, logging.getLogger("hpo").level
    yield io.StringIO()
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.getLogger("hpo").setLevel(ours)
    logging.captureWarnings(False)


def test_lines_of_user_code_name_the_trials_that_run(stream: io.StringIO) -> None:
    lines = LogLines()
    lines.write_to(stream)
    lines.running = lambda: ["tpe/0 #17"]
    logging.getLogger("their.module").warning("the loss is %s", "large")
    logging.getLogger("hpo").warning("trial 17 of e/tpe/0 is given back")
    lines.running = lambda: [f"tpe/0 #{n}" for n in range(5)]
    logging.getLogger("their.module").error("one of many")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("an old option", UserWarning, stacklevel=1)
    written = stream.getvalue().splitlines()
    assert written[0].endswith("WARNING [tpe/0 #17] the loss is large")
    assert written[1].endswith("WARNING trial 17 of e/tpe/0 is given back")
    assert written[2].endswith("ERROR [tpe/0 #0, tpe/0 #1, tpe/0 #2, 2 more] one of many")
    assert "UserWarning: an old option" in written[3]
    # Errors are their trials'; warnings are reported with the heartbeat.
    assert list(lines.warnings)[:2] == ["the loss is large", "trial 17 of e/tpe/0 is given back"]
    assert list(lines.warnings)[2].endswith("UserWarning: an old option")


def test_warnings_are_kept_once_and_the_newest_stay(stream: io.StringIO) -> None:
    lines = LogLines()
    lines.write_to(stream)
    for number in (1, 1, 2, 3, 4):
        logging.getLogger("a").warning("number %d", number)
    assert list(lines.warnings) == ["number 2", "number 3", "number 4"]


def failing(number: int) -> None:
    raise ValueError(f"the size {number} does not fit")


def other(number: int) -> None:
    failing(number)


def caught(function, number: int) -> ValueError:
    with pytest.raises(ValueError, match="the size") as error:
        function(number)
    return error.value


def test_the_same_error_from_the_same_lines_is_recognized() -> None:
    lines = LogLines()
    assert lines.first_of(caught(failing, 3), "trial 1 of e/tpe/0") is None
    assert lines.first_of(caught(failing, 4), "trial 17 of e/tpe/0") == "trial 1 of e/tpe/0"
    assert lines.first_of(caught(other, 3), "trial 18 of e/tpe/0") is None  # from elsewhere


def test_an_error_whose_message_cannot_be_made_is_known_again() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    lines = LogLines()
    assert lines.first_of(Mute(), "trial 1 of s") is None
    assert lines.first_of(Mute(), "trial 2 of s") == "trial 1 of s"
