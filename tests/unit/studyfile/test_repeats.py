"""What a launch says of its repeats before it spends anything, and repeats given beside a study file."""

import pytest

from hpo.errors import UsageError
from hpo.settings import Settings
from hpo.study_source import read_study
from hpo.studyfile.load import parse_study_file
from hpo.studyfile.notes import notes_on
from hpo.studyfile.repeats import repeats_note
from tests.unit import study_files

assert study_files  # registers the trainer

FILE = {
    "name": "e",
    "trainer": "toy",
    "metric": "val_loss",
    "samplers": ["random", "tpe"],
    "repeats": 3,
    "budget": {"trials": 4},
    "space": {"lr": {"low": 0.01, "high": 1.0, "log": True}},
    "fixed": {"epochs": 3},
}


def test_too_few_repeats_are_named_with_the_option_that_adds_some():
    assert repeats_note(2, 3) == (
        "repeats: 3 repeats of each cannot give a verdict between 2 samplers, however large the difference is: the "
        "test takes 4 at least; the same launch with --repeats 5 adds what is missing, now or later"
    )
    assert "--repeats 6 adds" in repeats_note(5, 1)  # ten pairs


def test_enough_repeats_are_named_too_and_one_sampler_has_no_verdict():
    assert repeats_note(3, 5) == (
        "repeats: 5 repeats of each can give a verdict between 3 samplers; the test takes 5 at least"
    )
    assert repeats_note(1, 1) is None


def test_the_note_is_among_those_of_a_launch():
    assert any("cannot give a verdict" in note for note in notes_on(parse_study_file(FILE, "study.toml")))
    assert not any("verdict" in note for note in notes_on(parse_study_file({**FILE, "samplers": ["tpe"]}, "s.toml")))


def test_repeats_beside_a_study_file():
    parsed, _ = read_study(FILE, Settings(), {"repeats": 7, "trials": None})
    assert parsed.repeats == 7
    assert len(parsed.study_names()) == 14
    assert parsed.continued(parse_study_file(FILE, "study.toml")).repeats == 7
    # A later launch with the file alone goes on with the repeats that there are.
    assert parse_study_file(FILE, "study.toml").continued(parsed).repeats == 7


@pytest.mark.parametrize("given", [{"repeats": 0}, {"repeats": 2, "trials": 5}])
def test_what_is_refused_beside_a_study_file(given):
    with pytest.raises(UsageError, match=r"--repeats must be .* from 1 to 10000, not 0|trials can be given with"):
        read_study(FILE, Settings(), given)
