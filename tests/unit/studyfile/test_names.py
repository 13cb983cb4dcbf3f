"""Names of parameters: nested models and dataclasses, unions, dicts, aliases, values without a spelling in TOML."""

import dataclasses
import enum
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest

from hpo.errors import StudyFileError
from hpo.search.space import Categorical, Float, Int
from hpo.studyfile.load import parse_study_file, study_file_from_json
from hpo.studyfile.model import StudyFile
from hpo.trainers.generator import trainer
from hpo.trainers.protocol import Config, Run


class Net(Config):
    lin1_size: int = pydantic.Field(64, ge=1)
    dropout: float | None = pydantic.Field(None, ge=0, lt=1)


@dataclasses.dataclass
class Schedule:
    warmup: int = 5
    kind: Literal["constant", "cosine"] = "constant"


class Optimizer(Config):
    lr: float = pydantic.Field(1e-3, gt=0)
    kind: Literal["sgd", "adam"] = "sgd"
    schedule: Schedule = Schedule()


class Model(Config):
    net: Net = Net()
    optimizer: Optimizer = Optimizer(lr=0.5, kind="adam")


class Cat(Config):
    animal: Literal["cat"] = "cat"
    lives: int = pydantic.Field(9, le=9)


class Dog(Config):
    animal: Literal["dog"] = "dog"
    tricks: int = 3


class Precision(enum.Enum):
    SINGLE = "fp32"
    HALF = "bf16"


class Nested(Config):
    model: Model = Model()
    data: dict[str, int] = pydantic.Field({"batch_size": 64, "workers": 2})
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="animal")] = Cat()
    lambda_: float = pydantic.Field(1.0, alias="lambda", ge=0)
    precision: Precision = Precision.SINGLE
    path: Path = Path("/tmp")
    secret: pydantic.SecretStr = pydantic.SecretStr("s")
    clip: Annotated[float, pydantic.Field(allow_inf_nan=True)] = math.inf
    patience: int | None = None
    label: str | None = None
    epochs: int = pydantic.Field(2, ge=1)


@trainer("names-nested", metrics={"loss": "minimize"})
def nested(config: Nested, run: Run) -> Iterator[dict[str, float]]:
    """Nested names."""
    yield {"loss": config.model.optimizer.lr}


@dataclasses.dataclass
class Deep:
    lr: float = 0.1
    heads: int = 4
    width: int = 64
    schedule: Schedule = dataclasses.field(default_factory=lambda: Schedule(warmup=9))

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")


@trainer("names-dataclass", metrics={"loss": "minimize"})
def deep(config: Deep, run: Run) -> Iterator[dict[str, float]]:
    """A dataclass."""
    yield {"loss": config.lr}


def read(text: str, trainer_name: str = "names-nested") -> StudyFile:
    head = (
        f'name = "n"\ntrainer = "{trainer_name}"\nmetric = "loss"\nsamplers = ["random"]\nbudget = {{ trials = 3 }}\n'
    )
    data = tomllib.loads(head + text)
    file = parse_study_file(data, "file")
    assert study_file_from_json(file.to_json()) == file
    return file


def mistakes(text: str, trainer_name: str = "names-nested") -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        read(text, trainer_name)
    return caught.value.mistakes


def config(file: StudyFile, **values: Any) -> Any:
    return file.configure(file.merge({name.replace("__", "."): value for name, value in values.items()}))


def test_dotted_names_reach_into_models_and_dataclasses_however_they_are_spelled() -> None:
    quoted = read('[space]\n"model.optimizer.lr" = { low = 0.1, high = 1 }\n"model.optimizer.schedule.warmup" = [1, 2]')
    tables = read("[space.model.optimizer]\nlr = { low = 0.1, high = 1 }\nschedule.warmup = [1, 2]")
    assert quoted == tables
    assert quoted.space.parameters == {
        "model.optimizer.lr": Float(0.1, 1.0),
        "model.optimizer.schedule.warmup": Categorical((1, 2)),
    }
    trained = config(quoted, model__optimizer__lr=0.25, model__optimizer__schedule__warmup=1)
    assert (trained.model.optimizer.lr, trained.model.optimizer.schedule.warmup) == (0.25, 1)


def test_a_nested_default_stays_beside_the_part_of_it_that_is_given() -> None:
    file = read('[space]\n"model.optimizer.schedule.warmup" = [1, 2]\n"data.batch_size" = [32]')
    trained = config(file, model__optimizer__schedule__warmup=1, data__batch_size=32)
    assert (trained.model.optimizer.lr, trained.model.optimizer.kind) == (0.5, "adam")
    assert trained.data == {"batch_size": 32, "workers": 2}
    file = read("[space]\nlr = [0.1]\n'schedule.kind' = ['cosine']", "names-dataclass")
    assert config(file, lr=0.1, schedule__kind="cosine").schedule == Schedule(9, "cosine")


def test_fixed_values_by_dots_and_by_tables_are_merged_below_sampled_ones() -> None:
    file = read(
        "[fixed]\nmodel.net.lin1_size = 8\n'model.optimizer.lr' = 0.2\n[space]\n'model.optimizer.kind' = ['sgd']"
    )
    assert file.fixed == {"model.net.lin1_size": 8, "model.optimizer.lr": 0.2}
    assert file.merge({"model.optimizer.kind": "sgd", "model.optimizer.lr": 0.3}) == {
        "model": {"net": {"lin1_size": 8}, "optimizer": {"lr": 0.3, "kind": "sgd"}}
    }


def test_unions_have_the_names_of_all_their_models() -> None:
    file = read(
        '[space]\n"pet.animal" = ["cat", "dog"]\n"pet.tricks" = { low = 1, high = 4, when."pet.animal" = "dog" }'
    )
    assert config(file, pet__animal="dog", pet__tricks=2).pet == Dog(tricks=2)
    assert config(file, pet__animal="cat").pet == Cat()
    assert config(read('[space]\n"pet.lives" = [3]'), pet__lives=3).pet == Cat(lives=3)


def test_conditions_and_first_configurations_may_be_nested() -> None:
    file = read(
        "[space.model.optimizer]\nkind = ['sgd', 'adam']\n"
        "lr = { low = 0.1, high = 1, when.model.optimizer.kind = 'sgd' }\n"
        "[[try_first]]\nmodel.optimizer = { kind = 'sgd', lr = 0.5 }\nmodel.net.lin1_size = 4"
    )
    assert file.try_first == [{"model.optimizer.kind": "sgd", "model.optimizer.lr": 0.5, "model.net.lin1_size": 4}]
    assert file.space.parameters["model.optimizer.lr"].when == {"model.optimizer.kind": ("sgd",)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[fixed.model.optimizer]\nlrr = 1", "fixed.model.optimizer.lrr: unknown name 'lrr' (did you mean 'lr'?)"),
        (
            "[fixed]\n'model.optimizer.lrr' = 1",
            "fixed.\"model.optimizer.lrr\": unknown name 'lrr' (did you mean 'lr'?)",
        ),
        (
            "[space]\n'model.nett.lin1_size' = [1]",
            "space.\"model.nett.lin1_size\": unknown name 'nett' (did you mean 'net'",
        ),
        ("[space.model.net]\nlin2 = [1]", "space.model.net.lin2: unknown name 'lin2'"),
        (
            "[fixed.model.optimizer.schedule]\nwarmupp = 1",
            "fixed.model.optimizer.schedule.warmupp: unknown name 'warmupp'",
        ),
        (
            "[[try_first]]\nmodel.net.lin1 = 3",
            "try_first[0].model.net.lin1: unknown name 'lin1' (did you mean 'lin1_size'",
        ),
        ("[fixed.pet]\nanimal = 'cat'\nlifes = 3", "fixed.pet.lifes: unknown name (did you mean 'lives'?)"),
        ("[fixed]\nmodel.net.lin1_size = 0", "fixed.model.net.lin1_size: 0 is refused; expected greater than or equal"),
        (
            "[fixed]\nlambda_ = 2",
            "fixed.lambda_: unknown parameter of the trainer's configuration: 'lambda_' (did you mean 'lambda'",
        ),
        ("[fixed]\nmodel.net.lin1_size = 3\n'model.net.lin1_size' = 4", 'fixed."model.net.lin1_size": is given twice'),
        (
            "[space]\npatience = ['None', 3]",
            "space.patience.choices[0]: 'None' is refused; expected a valid integer, unable",
        ),
        ("[space]\n'data.batch_size' = ['a']", "space.\"data.batch_size\".choices[0]: 'a' is refused"),
    ],
)
def test_a_misspelt_name_gets_the_near_miss_of_its_own_level(text: str, expected: str) -> None:
    found = mistakes(text)
    assert any(line.startswith(expected) for line in found), found


def test_the_error_says_how_no_value_is_spelled() -> None:
    assert mistakes("[space]\npatience = ['None', 3]")[0].endswith('or "none" for no value')


def test_aliases_are_searched_and_fixed_under_the_name_that_pydantic_reads() -> None:
    assert config(read("[space]\nlambda = { low = 0.1, high = 2 }"), **{"lambda": 0.5}).lambda_ == 0.5
    assert config(read("[fixed]\nlambda = 3")).lambda_ == 3


def test_none_can_be_searched_and_fixed() -> None:
    file = read("[space]\npatience = ['none', 3]\n'model.net.dropout' = ['none', 0.5]")
    assert file.space.parameters["patience"] == Categorical((None, 3))
    assert file.space.parameters["model.net.dropout"] == Categorical((None, 0.5))
    assert config(file, patience=None, model__net__dropout=None).patience is None
    assert config(read("[fixed]\npatience = 'none'")).patience is None
    assert config(read("[fixed]\nlabel = 'none'")).label == "none"
    when = read("[space]\npatience = ['none', 3]\n'lambda' = { low = 1, high = 2, when.patience = 'none' }")
    assert when.space.is_active("lambda", {"patience": None})


def test_values_that_json_cannot_hold_are_what_they_were() -> None:
    file = read("[fixed]\nclip = inf\nprecision = 'bf16'\npath = '/data'\nsecret = 'xyz'")
    again = study_file_from_json(file.to_json())
    for one in (config(file), config(again), file.configure(file.as_fixed(file.merge({})))):
        assert one.clip == math.inf
        assert one.precision is Precision.HALF
        assert one.path == Path("/data")
        assert one.secret.get_secret_value() == "xyz"
    assert mistakes("[fixed]\nlambda = inf") == ["fixed.lambda: inf is refused; expected a finite number"]


def test_an_export_holds_a_tree_and_means_the_same() -> None:
    file = read("[fixed]\npatience = 'none'\n[space]\n'model.optimizer.lr' = { low = 0.1, high = 1 }")
    given = file.merge({"model.optimizer.lr": 0.25})
    fixed = file.as_fixed(given)
    assert fixed["model"] == {"optimizer": {"lr": 0.25}}
    assert fixed["patience"] == "none"
    assert fixed["precision"] == "fp32"
    assert "secret" not in fixed
    exported = parse_study_file({"name": "e", "trainer": "names-nested", "metric": "loss", "fixed": fixed}, "e")
    assert config(exported) == file.configure(given)


def test_a_dataclass_is_as_good_as_a_model() -> None:
    space = "[space]\nheads = { low = 3, high = 8 }\nwidth = [64, 96]"
    file = read(space, "names-dataclass")
    assert file.space.parameters["heads"] == Int(3, 8)
    assert file.refusal({"heads": 5, "width": 64}) == "heads = 5 does not divide width = 64"
    assert mistakes("[space]\nheads = [5, 7]\nwidth = [64]", "names-dataclass")[0].endswith(
        "does not divide width = 64"
    )
    assert mistakes("[space]\nheds = [5, 7]", "names-dataclass")[0].endswith("(did you mean 'heads'?)")
    assert mistakes("[space]\nschedule.warmupp = [1]", "names-dataclass")[0].endswith("(did you mean 'warmup'?)")
