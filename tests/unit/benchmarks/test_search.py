"""The short form of ``benchmarks/search``: every pairing searches a table, and what is kept is shown again."""

from pathlib import Path

import pytest

from benchmarks.search.__main__ import SLOW, Results, Setting, main, measure, regrets
from benchmarks.search.pairings import PAIRINGS
from benchmarks.search.searches import run
from benchmarks.search.tasks import SyntheticTask, TableTask, all_tasks

OPTUNA = "Optuna random + asha"
QUICK = [name for name in PAIRINGS if not name.startswith(SLOW)]


@pytest.fixture(scope="module")
def digits() -> TableTask:
    return TableTask("digits_mlp", "loss")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", QUICK)
def test_every_pairing_searches(name: str, digits: TableTask) -> None:
    course = run(PAIRINGS[name].make(digits, 0), digits, [60, 150])
    assert len(course.regrets) == 2
    assert 0 <= course.regrets[1] <= 1
    assert course.num_trials >= course.num_complete >= 1
    if name.endswith("+ none"):
        assert course.num_trials == course.num_complete == 150 // 27


def test_ours_is_repeatable_and_prunes_as_optuna() -> None:
    """The same random draws under both tools' ASHA come to about the same number of trials."""
    task = SyntheticTask(0.5)
    first, again = (run(PAIRINGS["tpe + asha"].make(task, 3), task, [540]) for _ in range(2))
    assert first == again
    numbers = [run(PAIRINGS[name].make(task, 3), task, [540]).num_trials for name in ("random + asha", OPTUNA)]
    assert numbers[0] > 60
    assert numbers[1] > 60


def test_slots_share_the_budget_and_the_limit_holds() -> None:
    task = SyntheticTask(0.0)
    courses = [run(PAIRINGS["random + none"].make(task, 0), task, [540], slots, True) for slots in (1, 4)]
    assert [course.num_trials for course in courses] == [20, 20]
    assert courses[0].seconds == pytest.approx(4 * courses[1].seconds)
    limited = run(PAIRINGS["random + none"].make(task, 0), task, [540], 16, True, 4)
    assert limited.seconds == courses[1].seconds


def test_regrets_are_of_the_tables_best_and_median(digits: TableTask) -> None:
    every = [digits._regrets[index] for index in range(len(digits._regrets))]
    assert min(every) == 0
    assert sum(regret == 1 for regret in every) == pytest.approx(len(every) / 2, abs=2)


def test_results_are_kept_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run in parts gives what one run gives, and the table names each pairing with its counterpart's difference."""
    arguments = ["random + asha", "Optuna random + asha", "--epochs", "108", "--tasks", "synthetic 0"]
    file = tmp_path / "results.jsonl"
    main([*arguments, "--seeds", "1", "--results", str(file)])
    main([*arguments, "--seeds", "3", "--results", str(file)])
    kept = capsys.readouterr().out.split("\n\n")[-1]
    main([*arguments, "--seeds", "3"])
    assert capsys.readouterr().out.split("\n\n")[-1] == kept
    assert "| Optuna random + asha | 3 |" in kept
    tasks = all_tasks(["synthetic 0"])
    results, setting = Results(file), Setting((108,))
    assert regrets(results, "random + asha", tasks, setting, 108).shape == (3, len(tasks))
    assert measure(results, ["random + asha"], tasks, 3, setting, until=0.0)  # nothing is missing


def test_a_pairing_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tpe + nothing", "--tasks", "synthetic"])
    assert ended.value.code == 2
    assert "no such pairing: tpe + nothing" in capsys.readouterr().err
