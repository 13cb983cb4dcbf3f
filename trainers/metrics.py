"""What a trainer yields, taken as numbers or refused with the reason."""

import reprlib
from collections.abc import Mapping
from typing import Any


def checked_metrics(metrics: Mapping[Any, Any], wanted: str) -> dict[str, float]:
    """What a trainer yielded, as floats.

    Raises:
        KeyError: where the metric that the study optimizes is not among them.
        TypeError: where one of them is no number.
    """
    checked = {}
    for name, value in metrics.items():
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError
            checked[str(name)] = float(value)
        except Exception:
            raise TypeError(f"the trainer yields {reprlib.repr(value)} as {name!r}; a number was expected") from None
    if wanted not in checked:
        raise KeyError(f"the trainer yields no {wanted!r}, only {', '.join(sorted(checked)) or 'nothing'}")
    return checked
