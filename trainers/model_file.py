"""The file that holds a trial's model: ``model`` with a suffix, in the trial's folder."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

MODEL_STEM = "model"


def save_model(model: Any, folder: Path) -> Path:
    """Writes ``model`` (a file's path, a torch module or a state) into ``folder``, whole or not at all.

    Raises:
        FileNotFoundError: if there is no file at the path.
        TypeError: for a state if torch is not imported.
    """
    if isinstance(model, str | os.PathLike):
        source = Path(model)
        if not source.is_file():
            raise FileNotFoundError(f"no model file at {source}")
        target = folder / f"{MODEL_STEM}{source.suffix}"
    elif (torch := sys.modules.get("torch")) is not None:
        source, target = None, folder / f"{MODEL_STEM}.pt"
    else:
        raise TypeError(
            f"save_model got a {type(model).__name__}, and torch is not imported: write the model to a file "
            "(joblib.dump, numpy.savez, …) and give the file's path"
        )
    earlier = [path for path in model_files(folder) if path != target]
    aside = folder / f".{target.name}.{os.getpid()}"
    try:
        if source is None:
            torch.save(model.state_dict() if hasattr(model, "state_dict") else model, aside)  # type: ignore[union-attr]
        elif source.resolve() != target.resolve():
            shutil.copyfile(source, aside)
        if aside.exists():
            os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    for path in earlier:
        if source is None or path.resolve() != source.resolve():
            path.unlink(missing_ok=True)
    return target


def model_files(folder: Path) -> list[Path]:
    """The files in ``folder`` that hold a model: ``model`` or ``model.SUFFIX``, the newest first."""
    files = [path for path in folder.glob(f"{MODEL_STEM}*") if path.is_file() and path.stem == MODEL_STEM]
    return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
