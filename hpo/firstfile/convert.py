"""Which tool a file is from, and its draft.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.errors import StudyFileError
from hpo.firstfile import hydra, katib, optuna_json, ray_tune, wandb
from hpo.firstfile.draft import Draft

EXPECTED = (
    "a W&B sweep (method, parameters), a Katib Experiment (kind: Experiment), a configuration of Hydra's Optuna "
    "sweeper (hydra.sweeper), Ray Tune's param_space or Optuna's distributions as JSON"
)


def convert(path: Path) -> Draft:
    """The draft of another tool's file.

    Raises:
        StudyFileError: if it cannot be read, is of no tool that is known, or an entry cannot be understood.
    """
    content = _content(path)
    if "hydra" in content:
        reader = hydra.read
    elif content.get("kind") == "Experiment" and "spec" in content:
        reader = katib.read
    elif "parameters" in content and ("method" in content or "program" in content):
        reader = wandb.read
    elif any(key in content for key in ("param_space", "tune_config", "num_samples")):
        reader = ray_tune.read
    elif any(key in content for key in ("distributions", "search_space", "n_trials")):
        reader = optuna_json.read
    else:
        raise StudyFileError(str(path), [f"is of no tool that is known; expected {EXPECTED}"])
    try:
        return reader(content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise StudyFileError(str(path), [f"cannot be understood: {type(error).__name__}: {error}"]) from error


def _content(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise StudyFileError(str(path), [f"cannot be read: {why}"]) from None
    import yaml

    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise StudyFileError(str(path), [f"cannot be read: {error}"]) from None
    if not isinstance(content, Mapping):
        raise StudyFileError(str(path), [f"is no table; expected {EXPECTED}"])
    return content
