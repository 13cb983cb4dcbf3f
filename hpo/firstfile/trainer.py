"""A first study file for a trainer with a configuration: each field with its bounds, searched if they are a range."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from hpo.errors import UsageError, near_miss
from hpo.firstfile.draft import Draft, key, toml
from hpo.firstfile.entries import add_choices, add_range
from hpo.trainers.registry import TRAINERS, TrainerEntry

MOST_SEARCHED = 4
SMALL = 1e-6
"""How far a range stays from a bound that does not belong to it."""
BUILT_IN = ("classifier", "program")


def chosen_trainer(name: str | None) -> TrainerEntry:
    """The trainer of that name, or the only one that is not built in. Raises UsageError if there is none."""
    own = [entry for entry in TRAINERS.values() if entry.name not in BUILT_IN and not entry.suggests]
    if name is None and len(own) == 1:
        return own[0]
    if name is None or name not in TRAINERS:
        known = ", ".join(entry.name for entry in own) or "none of your own: name their module with --trainers"
        what = "name one with --trainer" if name is None else f"unknown trainer {name!r}{near_miss(name, TRAINERS)}"
        raise UsageError(f"{what}; there are {known}, and classifier")
    return TRAINERS[name]


def draft_for(entry: TrainerEntry) -> Draft:
    """The draft for a trainer of the user's."""
    if entry.config is None:
        raise UsageError(
            f"the trainer {entry.name!r} has no configuration; an objective needs no file: hpo launch {entry.name}"
        )
    draft = Draft(name=f"{entry.name}-search".replace("_", "-"), trainer=entry.name)
    _metric(entry, draft)
    lines = add_fields(draft, entry.config.model_fields, entry.config.model_fields)
    about = "# Fields that are not searched: move one into [fixed] to set it, or into [space] to search it."
    draft.extra += ["", about, *lines]
    return draft


def _metric(entry: TrainerEntry, draft: Draft) -> None:
    metrics = entry.metrics or {}
    draft.metric, direction = next(iter(metrics.items()), ("loss", None))
    draft.direction = direction or ("maximize" if "acc" in draft.metric or "score" in draft.metric else "minimize")
    if not metrics:
        draft.note("metric: the trainer does not say what it yields; check metric and direction")


def add_fields(draft: Draft, fields: Mapping[str, Any], searched: Iterable[str]) -> list[str]:
    """Puts fields with a range, or that have no default, into the space; returns a comment line for each other one."""
    lines = []
    names = list(searched)
    for name, field in fields.items():
        if name in draft.fixed:
            continue
        low, high, described = bounds(field)
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        about = ", ".join(part for part in (described, field.description or "") if part)
        kind = _kind(field.annotation)
        is_searched = name in names and (len(draft.entries) < MOST_SEARCHED or field.is_required())
        if is_searched and name != "epochs" and _add(draft, name, field, kind, low, high, default):
            draft.comments[name] = about or f"default {default!r}"
            if name in draft.fixed:
                draft.note(f"{name}: has no default; check its value in [fixed]")
            continue
        shown = "…" if default is None or not isinstance(default, str | int | float | bool) else toml(default)
        lines.append(f"# {key(name)} = {shown}{f'  # {about}' if about else ''}")
    return lines


def _add(draft: Draft, name: str, field: Any, kind: Any, low: Any, high: Any, default: Any) -> bool:
    """Adds the field to the space, or without a default to the fixed values; False if neither."""
    literal = get_args(field.annotation) if get_origin(field.annotation) is Literal else None
    if literal:
        add_choices(draft, name, literal)
        return True
    if kind is bool:
        add_choices(draft, name, [False, True])
        return True
    if kind in (int, float):
        whole = kind is int
        if low is not None and high is not None and high > low:
            log = low > 0 and high / low >= 100
            add_range(draft, name, low, high, whole=whole, log=log)
            return True
        if isinstance(default, int | float) and default > 0:
            first, last = (max(low or 0, default / 4), default * 4) if whole else (default / 10, default * 10)
            first, last = (max(1, int(first)), int(last)) if whole else (first, last)
            add_range(draft, name, max(first, low or first), min(last, high or last), whole=whole, log=True)
            return name in draft.entries
        if field.is_required():
            add_range(draft, name, *((1, 8) if whole else (0.001, 1.0)), whole=whole, log=True)
            return True
    elif field.is_required():
        draft.fixed[name] = "…"
        return True
    return False


def _kind(annotation: Any) -> Any:
    """int, float, bool or str, also of an optional one; the annotation itself otherwise."""
    parts = get_args(annotation)
    inner = [part for part in parts if part is not type(None)]
    return inner[0] if len(inner) == 1 and len(parts) == 2 else annotation


def bounds(field: Any) -> tuple[Any, Any, str]:
    """Least and greatest value that a range may have, or None, and the bounds in words."""
    low: Any = None
    high: Any = None
    words = []
    is_whole = _kind(field.annotation) is int
    for item in field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (value := getattr(item, name, None)) is None:
                continue
            words.append(f"{sign} {value}")
            if name == "ge":
                low = value
            elif name == "le":
                high = value
            elif name == "gt":
                low = value + 1 if is_whole else value + SMALL
            else:
                high = value - 1 if is_whole else value - SMALL
    return low, high, " and ".join(words)
