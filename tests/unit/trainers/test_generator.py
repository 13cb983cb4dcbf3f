"""Generators as trainers, and loading a user's modules."""

import importlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest

from hpo.trainers import registry
from hpo.trainers.errors import TrainerError
from hpo.trainers.generator import GeneratorTrainer, trainer
from hpo.trainers.loading import load_trainers
from hpo.trainers.protocol import BuildOptions, Config, Ended, EpochEnd, Failed, Run, Trainer


class Epochs(Config):
    epochs: int = 3


class NoEpochs(Config):
    x: float = 1.0


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> registry.TrainerTable:
    """A table of trainers of the test's own."""
    importlib.import_module("hpo.trainers.classifier.entry")  # registers in the table of all tests, not in this one
    own = registry.TrainerTable({})
    own.update(registry.TRAINERS)
    monkeypatch.setattr(registry, "TRAINERS", own)
    return own


def test_an_epoch_for_each_yield():
    def train(config: Epochs, run: Run) -> Iterator[dict[str, float]]:
        for epoch in range(run.start_epoch, config.epochs):
            if epoch == 1:
                run.save({"epoch": epoch})
            yield {"loss": float(epoch)}

    made = GeneratorTrainer(train)
    assert isinstance(made, Trainer)
    assert made.capacity == 1
    assert made.advance() == []
    made.start("a", Epochs(), Run())
    (first,) = made.advance()
    assert first == EpochEnd("a", 1, {"loss": 0.0}, False, None)
    with pytest.raises(RuntimeError, match="the slot is taken"):
        made.start("b", Epochs(), Run())
    (second,) = made.advance()
    assert (second.epoch, second.metrics, second.finished) == (2, {"loss": 1.0}, False)
    assert second.snapshot() == {"epoch": 1}
    (third,) = made.advance()
    assert (third.epoch, third.finished, third.snapshot) == (3, False, None)
    assert made.advance() == [Ended("a")]
    assert made.advance() == []
    made.start("b", Epochs(), Run(start_epoch=2))
    (resumed,) = made.advance()
    assert (resumed.key, resumed.epoch, resumed.metrics, resumed.finished) == ("b", 3, {"loss": 2.0}, False)


def test_stop_closes_the_generator():
    closed = []

    def train(config: Epochs, run: Run) -> Iterator[dict[str, float]]:
        try:
            while True:
                yield {"loss": 0.0}
        finally:
            closed.append(run.seed)

    made = GeneratorTrainer(train)
    made.start("a", NoEpochs(), Run(seed=7))
    made.advance()
    made.stop("another")
    assert closed == []
    made.stop("a")
    assert closed == [7]
    made.stop("a")
    assert closed == [7]
    assert made.advance() == []


def test_a_generator_that_ends_by_itself():
    def train(config: NoEpochs, run: Run) -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}

    made = GeneratorTrainer(train)
    made.start("a", NoEpochs(), Run())
    (event,) = made.advance()
    assert event.finished is False
    assert made.advance() == [Ended("a")]
    assert made.advance() == []


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), MemoryError()])
def test_what_a_trial_raises_is_its_own(error: BaseException):
    def train(config: NoEpochs, run: Run) -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}
        raise error

    made = GeneratorTrainer(train)
    made.start("a", NoEpochs(), Run())
    made.advance()
    assert made.advance() == [Failed("a", error)]
    made.start("b", NoEpochs(), Run())
    assert [event.key for event in made.advance()] == ["b"]


def test_ctrl_c_is_not_the_trials():
    def train(config: NoEpochs, run: Run) -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}
        raise KeyboardInterrupt

    made = GeneratorTrainer(train)
    made.start("a", NoEpochs(), Run())
    made.advance()
    with pytest.raises(KeyboardInterrupt):
        made.advance()


def test_what_is_yielded_is_metrics():
    def train(config: NoEpochs, run: Run) -> Iterator[dict[str, float]]:
        yield 0.5  # type: ignore[misc]

    made = GeneratorTrainer(train)
    made.start("a", NoEpochs(), Run())
    (event,) = made.advance()
    assert isinstance(event, Failed)
    assert isinstance(event.error, TypeError)


def test_registered_with_its_first_line(table):
    @trainer("mine", metrics={"loss": "minimize"})
    def mine(config: Epochs, run: Run) -> Iterator[dict[str, float]]:
        """What it does.

        And more.
        """
        yield {"loss": 0.0}

    entry = table["mine"]
    assert (entry.config, entry.description, entry.max_slots) == (Epochs, "What it does.", 1)
    assert entry.metrics == {"loss": "minimize"}
    assert isinstance(entry.build(BuildOptions()), GeneratorTrainer)


class Loose(pydantic.BaseModel):
    x: float = 0.0


def _no_generator(config: Epochs, run: Run) -> Iterator[dict[str, float]]:
    return iter([{"loss": 0.0}])


def _one_argument(config: Epochs) -> Iterator[dict[str, float]]:
    yield {"loss": 0.0}


def _no_annotation(config, run):
    yield {"loss": 0.0}


def _a_dictionary(config: dict[str, float], run: Run) -> Iterator[dict[str, float]]:
    yield {"loss": 0.0}


def _loose(config: Loose, run: Run) -> Iterator[dict[str, float]]:
    yield {"loss": 0.0}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_no_generator, "must be a generator function: it yields the metrics of each epoch"),
        (_one_argument, "must take two arguments, (config, run); it takes 1"),
        (_no_annotation, "annotate 'config' with its configuration"),
        (_a_dictionary, "annotate 'config' with its configuration"),
        (_loose, "derive Loose from hpo.Config, which refuses unknown names"),
    ],
)
def test_a_wrong_signature_is_told(function, said: str, table):
    with pytest.raises(TrainerError) as caught:
        trainer("wrong")(function)
    assert said in str(caught.value)
    assert f"trainer 'wrong' ({__name__}.{function.__name__})" in str(caught.value)
    assert "wrong" not in table


MODULE = """
from collections.abc import Iterator
import hpo

class Config(hpo.Config):
    x: float = 0.0

@hpo.trainer("{name}")
def train(config: Config, run: hpo.Run) -> Iterator[dict[str, float]]:
    yield {{"loss": config.x}}
"""


def test_modules_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "named_trainer_module.py").write_text(MODULE.format(name="by_module"))
    (tmp_path / "filed_trainer_module.py").write_text(MODULE.format(name="by_file"))
    load_trainers(" named_trainer_module, ./filed_trainer_module.py ,")
    assert table["by_module"].config.__module__ == "named_trainer_module"
    assert table["by_file"].config.__module__ == "filed_trainer_module"
    load_trainers([str(tmp_path / "filed_trainer_module.py")])  # once more does nothing


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ("no_such_trainers", "the trainer module 'no_such_trainers' cannot be imported: ModuleNotFoundError"),
        ("absent.py", "there is no trainer module at "),
        ("broken_trainers.py", "'broken_trainers.py' cannot be imported: ZeroDivisionError: division by zero"),
        ("misspelt_trainers.py", "'misspelt_trainers.py' cannot be imported: SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported(
    modules: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_trainers.py").write_text("1 / 0\n")
    (tmp_path / "misspelt_trainers.py").write_text("def f(:\n")
    with pytest.raises(TrainerError) as caught:
        load_trainers(modules)
    assert said in str(caught.value)


def test_two_trainers_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table):
    monkeypatch.chdir(tmp_path)
    for module in ("first_of_two", "second_of_two"):
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(MODULE.format(name="same")))
    with pytest.raises(TrainerError, match="two trainers are called 'same': in first_of_two and second_of_two"):
        load_trainers("first_of_two.py,second_of_two.py")


def test_an_artifact_must_exist(tmp_path: Path):
    run = Run()
    with pytest.raises(FileNotFoundError, match="no file to attach at"):
        run.artifact(tmp_path / "absent.png")
    (tmp_path / "there.txt").write_text("x")
    run.artifact(tmp_path / "there.txt")
    assert run.artifacts == [tmp_path / "there.txt"]
