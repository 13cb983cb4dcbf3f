"""A search space of Ray Tune, as JSON, as a study file.

``{"param_space": {"lr": "tune.loguniform(1e-4, 1e-1)", "width": {"choice": [64, 128]}}, "num_samples": 50, …}``
"""

from collections.abc import Mapping
from typing import Any

from hpo.firstfile.calls import call
from hpo.firstfile.draft import Draft
from hpo.firstfile.entries import add_choices, add_range, normal, set_direction, set_pruner, set_sampler

KINDS = (
    "choice", "grid_search", "uniform", "quniform", "loguniform", "qloguniform", "randint", "qrandint", "lograndint",
    "qlograndint", "randn", "qrandn", "sample_from",
)  # fmt: skip


def read(content: Mapping[str, Any]) -> Draft:
    """The draft of a table with ``param_space`` or ``config``."""
    config = {**(content.get("tune_config") or {}), **{k: v for k, v in content.items() if k != "tune_config"}}
    draft = Draft(name=str(config.get("name") or "ray-search"), command="python train.py", args="flags")
    draft.note("command: Ray Tune runs a function; give the script that trains one configuration")
    draft.metric = str(config.get("metric") or "loss")
    set_direction(draft, config.get("mode") or "min")
    set_sampler(draft, config.get("search_alg") or "random")
    draft.budget = {"trials": int(config.get("num_samples") or 10)}
    if (seconds := config.get("time_budget_s")) is not None:
        draft.budget["seconds"] = float(seconds)
    if (scheduler := config.get("scheduler")) is not None:
        set_pruner(draft, scheduler.get("type") if isinstance(scheduler, Mapping) else str(scheduler).partition("(")[0])
    for key in ("max_concurrent_trials", "resources_per_trial", "stop", "reuse_actors"):
        if key in config:
            draft.note(f"{key}: no key of a study file; see the options of hpo launch")
    _parameters(config.get("param_space") or config.get("config") or {}, "", draft)
    return draft


def _parameters(table: Mapping[str, Any], prefix: str, draft: Draft) -> None:
    for short, entry in table.items():
        name = f"{prefix}{short}"
        found = call(entry)
        if isinstance(entry, Mapping) and len(entry) == 1 and next(iter(entry)) in KINDS:
            kind, values = next(iter(entry.items()))
            found = (kind, [values] if kind in ("choice", "grid_search") else list(values))
        if found is not None and found[0] in KINDS:
            _domain(name, *found, draft)
        elif isinstance(entry, Mapping):
            _parameters(entry, f"{name}.", draft)
        else:
            add_choices(draft, name, [entry])


def _domain(name: str, kind: str, values: list[Any], draft: Draft) -> None:
    if kind in ("choice", "grid_search"):
        add_choices(draft, name, values[0] if isinstance(values[0], list) else values, grid=kind == "grid_search")
    elif kind == "sample_from":
        draft.note(f"{name}: sample_from has no counterpart and is left out; when = {{ … }} makes an entry conditional")
    elif kind.endswith("randn"):
        mean, deviation = values[:2] if len(values) > 1 else (0.0, 1.0)
        normal(draft, name, float(mean), float(deviation))
    else:
        whole = "randint" in kind
        step = values[2] if kind.startswith("q") else None
        # The upper bound of randint is exclusive, that of qrandint is not.
        high = values[1] - 1 if whole and not kind.startswith("q") else values[1]
        add_range(draft, name, values[0], high, whole=whole, log="log" in kind, step=step)
