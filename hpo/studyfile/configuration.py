"""From given values to a trainer's configuration and back: the one merge, validation, and what is shown of the result.

*Given* values are what a trial's configuration is made of: the fixed values of the study file and the sampled ones,
before the trainer's configuration has validated them. They are kept with each trial and validated again by every
attempt, by an export and by ``hpo train``: a validated configuration that is dumped and read again need not be equal
(aliases, computed fields, validators that convert).
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pydantic


def display_dump(config: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A validated configuration as JSON can hold it, for display alone; the given values if it cannot be dumped."""
    try:
        if isinstance(config, pydantic.BaseModel):
            dumped = config.model_dump(mode="json")
        elif dataclasses.is_dataclass(config) and not isinstance(config, type):
            dumped = pydantic.TypeAdapter(type(config)).dump_python(config, mode="json")
        else:
            dumped = dict(given)
        json.dumps(dumped, allow_nan=False)
    except Exception:  # a serializer of the user's own, or a value that JSON cannot hold
        return dict(given)
    return dict(dumped)
