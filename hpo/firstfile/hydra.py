"""A configuration of Hydra's Optuna sweeper as a study file."""

from collections.abc import Mapping
from typing import Any

from hpo.firstfile.calls import call
from hpo.firstfile.draft import Draft
from hpo.firstfile.entries import add_choices, add_range, set_direction, set_sampler


def read(content: Mapping[str, Any]) -> Draft:
    """The draft of a configuration with ``hydra.sweeper``; its other keys stay in the program's own configuration."""
    sweeper = (content.get("hydra") or {}).get("sweeper") or {}
    draft = Draft(name=str(sweeper.get("study_name") or "hydra-sweep"), command="python train.py", args="hydra")
    draft.note("command: the script with Hydra's main; its own configuration files stay as they are")
    draft.metric = "objective"
    draft.note("metric: call hpo.report(objective=value) where the function returns the value, or give [metrics]")
    direction = sweeper.get("direction", "minimize")
    if isinstance(direction, list):
        draft.note(f"several directions, {direction}: the first alone is taken")
        direction = direction[0]
    set_direction(draft, direction)
    sampler = sweeper.get("sampler") or {}
    set_sampler(draft, str(sampler.get("_target_", "TPESampler")).rpartition(".")[2])
    if isinstance(sampler.get("seed"), int):
        draft.seed = sampler["seed"]
    for key in sampler:
        if key not in ("_target_", "seed"):
            draft.note(f"sampler.{key}: check whether hpo has the option: hpo list, docs/reference/samplers.md")
    draft.budget = {"trials": int(sweeper.get("n_trials", 20))}
    if "n_jobs" in sweeper:
        draft.note(f"n_jobs: hpo launch FILE --workers {sweeper['n_jobs']}")
    for key in ("storage", "custom_search_space", "max_failure_rate"):
        if sweeper.get(key) is not None:
            draft.note(f"{key}: no counterpart")
    for name, entry in {**(sweeper.get("search_space") or {}), **(sweeper.get("params") or {})}.items():
        _parameter(str(name), entry, draft)
    return draft


def _parameter(name: str, entry: Any, draft: Draft) -> None:
    if isinstance(entry, Mapping):
        kind = entry.get("type", "float")
        if kind == "categorical":
            add_choices(draft, name, entry.get("choices") or [])
        else:
            whole, log = kind == "int", bool(entry.get("log"))
            add_range(draft, name, entry["low"], entry["high"], whole=whole, log=log, step=entry.get("step"))
        return
    found = call(entry)
    tags: list[Any] = []
    while found is not None and found[0] == "tag":
        tags += found[1][:-1]
        found = call(found[1][-1])
    if found is None:
        words = [word.strip() for word in str(entry).split(",")]
        add_choices(draft, name, [_plain(word) for word in words])
        return
    kind, values = found
    if kind == "choice":
        add_choices(draft, name, values)
    elif kind == "interval":
        add_range(draft, name, values[0], values[1], log="log" in tags)
    elif kind == "range":
        start, stop = (0, values[0]) if len(values) == 1 else values[:2]
        step = values[2] if len(values) > 2 else 1
        whole = all(isinstance(value, int) for value in (start, stop, step))
        # The end of a range is exclusive, as in Python.
        last = start + step * (int((stop - start) / step - 1e-9))
        add_range(draft, name, start, last, whole=whole, log="log" in tags, step=step)
    else:
        draft.note(f"{name}: {entry} has no counterpart and is left out")


def _plain(word: str) -> Any:
    found = call(f"choice({word})")
    return word if found is None or not found[1] else found[1][0]
