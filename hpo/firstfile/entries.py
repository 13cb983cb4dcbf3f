"""Entries of ``[space]`` from the ranges of other tools, and their samplers and pruners under our names."""

from typing import Any

from hpo.firstfile.draft import Draft
from hpo.search.pruner_registry import PRUNERS
from hpo.search.sampler_registry import SAMPLERS
from hpo.studyfile.hints import usual_name


def add_range(
    draft: Draft,
    name: str,
    low: Any,
    high: Any,
    *,
    whole: bool = False,
    log: bool = False,
    step: Any = None,
    comment: str | None = None,
) -> None:
    """A range; a step beside log, which no entry can have, becomes a note, and a high that no step reaches moves."""
    low, high = _number(low, whole), _number(high, whole)
    if low > high:
        low, high = high, low
        draft.note(f"{name}: its bounds were the other way round")
    if log and low <= 0:
        draft.note(f"{name}: a log range cannot start at {low!r}, so it is linear; give low a small number above 0")
        log = False
    if log and step is not None and not (whole and step == 1):
        draft.note(f"{name}: a log range has no step; the step of {step!r} is left out")
        step = None
    if low == high:
        draft.fixed[name] = low
        return
    entry: dict[str, Any] = {"low": low, "high": high}
    if log:
        entry["log"] = True
    if step is not None and not (whole and step == 1):
        step = _number(step, whole)
        last = low + step * int((high - low) / step + 1e-9)
        if abs(last - high) > 1e-9 * max(1.0, abs(high)):
            last = last if whole else float(f"{last:.12g}")
            draft.note(f"{name}: {high!r} is not reached from {low!r} in steps of {step!r}; it ends at {last!r}")
            entry["high"] = last
        entry["step"] = step
    draft.entries[name] = entry
    if comment is not None:
        draft.comments[name] = comment


def add_choices(draft: Draft, name: str, choices: Any, *, grid: bool = False) -> None:
    """Choices; one alone is a fixed value, and what no choice can be becomes text."""
    values: list[Any] = []
    for choice in choices:
        if choice is None:
            draft.note(f'{name}: the choice null is the text "none"')
            choice = "none"
        elif not isinstance(choice, str | int | float | bool):
            draft.note(f"{name}: the choice {choice!r} is a text now; the program has to read it")
            choice = str(choice)
        if not any(choice == value for value in values):
            values.append(choice)
    if len(values) == 1:
        draft.fixed[name] = values[0]
    elif values:
        draft.entries[name] = {"choices": values, "grid": True} if grid else values


def normal(draft: Draft, name: str, mean: float, deviation: float, kind: str = "normal") -> None:
    """A normal distribution, which has no counterpart: a range of three deviations on both sides."""
    low, high = mean - 3 * deviation, mean + 3 * deviation
    draft.note(f"{name}: a {kind} distribution has no counterpart; the range holds 3 deviations on both sides")
    add_range(draft, name, float(low), float(high))


def set_sampler(draft: Draft, given: Any) -> None:
    """Another tool's sampler under our name; an unknown one becomes tpe with a note."""
    found = usual_name(given, SAMPLERS)
    if given is not None and found is None:
        draft.note(f"the sampler {given} has no counterpart; tpe is used: hpo list shows the others")
    draft.samplers = [found or "tpe"]


def set_pruner(draft: Draft, given: Any) -> None:
    """Another tool's pruner under our name; an unknown one is left out with a note."""
    found = usual_name(given, PRUNERS)
    if found is None:
        draft.note(f"the pruner {given} has no counterpart and is left out: hpo list shows ours")
    elif found != "none":
        draft.pruner = found


def set_direction(draft: Draft, given: Any) -> None:
    """min, minimize, MINIMIZE and the same for max; anything else becomes minimize with a note."""
    word = str(getattr(given, "name", given)).lower()
    if word.startswith(("min", "max")):
        draft.direction = "minimize" if word.startswith("min") else "maximize"
    else:
        draft.direction = "minimize"
        draft.note(f"the direction {given!r} is not known; check direction")


def _number(value: Any, whole: bool) -> Any:
    number = float(value)
    if whole:
        return int(number)
    return number
