"""The lines of workers that die of the same thing are printed once."""

from hpo.launchers.repeated import PrintedLines

FIRST = """    2026-01-01 10:00:00,123 INFO trial 3 of e/tpe/0 begins
    Fatal Python error: Segmentation fault in /home/u/a/train.py, line 12"""
AGAIN = """    2026-01-02 11:30:07,001 INFO trial 9 of e/tpe/0 begins
    Fatal Python error: Segmentation fault in /home/u/a/train.py, line 12"""


def test_a_crash_that_repeats_is_printed_once():
    printed = PrintedLines()
    assert printed.new_lines("worker 1", FIRST) == FIRST
    assert printed.new_lines("worker 2", AGAIN) == "    the same lines again as worker 1 wrote"
    assert printed.new_lines("worker 2", "Killed") == "Killed"
    assert printed.new_lines("worker 1", "") == ""
    assert printed.new_lines("worker 1", "") == ""
