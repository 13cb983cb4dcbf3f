"""What the pages' filters make of durations."""

from hpo.dashboard.web import duration


def test_quick_trials_differ_and_long_ones_are_short():
    assert [duration(s) for s in (None, 0, 0.0421, 0.9612, 9.94, 44.4, 3661)] == [
        "–",
        "0 s",
        "0.042 s",
        "0.96 s",
        "9.9 s",
        "44 s",
        "1 h 01 min",
    ]
