"""Nothing that is read from a file or a database is executed: by the source, and by a data set that tries."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.trainers.classifier.config import ClassifierConfig
from hpo.trainers.classifier.datasets import DATASETS
from hpo.trainers.classifier.entry import check_classifier
from hpo.trainers.errors import TrainerError

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("hpo", "trainers") for path in sorted((ROOT / folder).rglob("*.py"))]
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml"}
ALLOWED = {
    # CIFAR's published files are pickles; each is read after its checksum matched, see below.
    ("trainers/classifier/datasets/cifar10.py", "pickle.loads"),
    # A function of a notebook, in a file that the launcher names to its own worker: written by the same user, its name
    # is the checksum of its content. Nothing from a database gets there.
    ("trainers/functions.py", "cloudpickle.loads"),
}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Calls that may execute what they read."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_NAMES:
            yield node.func.id
        elif isinstance(node.func, ast.Attribute):
            name = ast.unparse(node.func)
            module, _, function = name.rpartition(".")
            loads = function.startswith(("load", "Unpickler", "open")) or function == "read_pickle"
            if (
                (module in UNSAFE_MODULES and loads)
                or (name == "torch.load" and options.get("weights_only") != "True")
                or (function == "load" and "allow_pickle" in options)
                or function == "read_pickle"
            ):
                yield name
    for node in ast.walk(tree):
        # A name that is imported by itself would be called without its module.
        if isinstance(node, ast.ImportFrom) and node.module in UNSAFE_MODULES:
            yield f"from {node.module} import"


def test_no_source_executes_what_it_reads() -> None:
    assert len(SOURCES) > 80
    found = {
        (path.relative_to(ROOT).as_posix(), name) for path in SOURCES for name in unsafe(ast.parse(path.read_text()))
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "pickle.load(file)",
        "pickle.Unpickler(file).load()",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, yaml.Loader)",
        "np.load(path, allow_pickle=True)",
        "from pickle import loads",
    ],
)
def test_that_it_would_be_found(source: str) -> None:
    assert list(unsafe(ast.parse(source)))


def test_a_forged_cifar_file_is_not_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "executed"), "w"))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, _ in DATASETS["cifar10"].files:
        (folder / name).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(TrainerError, match="cifar10"):
        check_classifier(ClassifierConfig(dataset="cifar10"), tmp_path, False)
    assert not (tmp_path / "executed").exists()
    pickle.loads((folder / "data_batch_1").read_bytes()).close()
    assert (tmp_path / "executed").exists()
