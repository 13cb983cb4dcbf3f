"""Reads ``samplers`` and ``pruner``: names or tables with a name and options."""

from collections.abc import Mapping
from typing import Any

from hpo.search.context import Options
from hpo.search.pruner_registry import PRUNERS, PrunerSpec
from hpo.search.sampler_registry import SAMPLERS, SamplerSpec
from hpo.studyfile.hints import usual_name
from hpo.studyfile.json_values import name_mistake
from hpo.studyfile.validation import Mistakes, shown, toml_path

DEEPEST_WRAPPED = 3  # pruners within pruners


def read_samplers(entries: list[Any], mistakes: Mistakes) -> list[SamplerSpec]:
    """The samplers without mistakes."""
    samplers: list[SamplerSpec] = []
    if not entries:
        mistakes.add("samplers", f"is empty; expected at least one of {', '.join(SAMPLERS)}")
    for index, raw in enumerate(entries):
        path = toml_path("samplers", index)
        checked = _named(raw, SAMPLERS, "sampler", ("samplers", index), ("label",), mistakes)
        if checked is None:
            continue
        name, options, others = checked
        label = others.get("label", name)
        wrong = name_mistake(label) if isinstance(label, str) else f"{shown(label)} is no text"
        if wrong is not None:
            mistakes.add(f"{path}.label", wrong)
        elif any(label == sampler.label for sampler in samplers):
            hint = f"; give one of them another label: {{ name = {name!r}, label = … }}"
            mistakes.add(path, f"the sampler {label!r} is there twice{hint}")
        else:
            samplers.append(SamplerSpec(name, label, options))
    return samplers


def read_pruner(raw: Any, mistakes: Mistakes, path: tuple[str, ...] = ("pruner",)) -> PrunerSpec:
    """The pruner and those that it wraps, each validated once; after a mistake, a pruner that never prunes."""
    if len(path) > DEEPEST_WRAPPED:
        mistakes.add(toml_path(*path), f"expected at most {DEEPEST_WRAPPED} pruners within each other")
        return PrunerSpec()
    if (checked := _named(raw, PRUNERS, "pruner", path, (), mistakes)) is None:
        return PrunerSpec()
    name, options, _ = checked
    if (wrapped := getattr(options, "wrapped", None)) is not None:
        inner = read_pruner(wrapped, mistakes, (*path, "wrapped"))
        options = options.model_copy(update={"wrapped": inner if inner.prunes else None})
    return PrunerSpec(name, options)


def _named(
    raw: Any,
    table: Mapping[str, Any],
    kind: str,
    path: tuple[str | int, ...],
    other_keys: tuple[str, ...],
    mistakes: Mistakes,
) -> tuple[str, Options, dict[str, Any]] | None:
    """Name, validated options and the other keys of a name or a table with a name; None after a mistake."""
    given = {"name": raw} if isinstance(raw, str) else raw
    where = toml_path(*path)
    if not isinstance(given, Mapping):
        mistakes.add(where, f"{shown(raw)} is no {kind}; expected a name, or a table with name and options")
        return None
    if "name" not in given:
        mistakes.add(f"{where}.name", f"missing; expected one of {', '.join(table)}")
        return None
    name = given["name"]
    if not isinstance(name, str) or name not in table:
        place = where if isinstance(raw, str) else f"{where}.name"
        if (usual := usual_name(name, table)) is not None:
            mistakes.add(place, f"unknown {kind} {shown(name)} (did you mean {usual!r}?)")
        else:
            mistakes.unknown(place, kind, name, table)
        return None
    others = {key: given[key] for key in other_keys if key in given}
    options = {key: value for key, value in given.items() if key != "name" and key not in other_keys}
    known = [*table[name].options.model_fields, *other_keys]
    model: Options | None = mistakes.validate(table[name].options, options, *path, known=known)
    return None if model is None else (name, model, others)
