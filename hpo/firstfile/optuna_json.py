"""A search space of Optuna, as JSON, as a study file: of ``distribution_to_json``, or plain tables."""

import json
from collections.abc import Mapping
from typing import Any

from hpo.firstfile.draft import Draft
from hpo.firstfile.entries import add_choices, add_range, set_direction, set_pruner, set_sampler


def read(content: Mapping[str, Any]) -> Draft:
    """The draft of a table with ``distributions`` or ``search_space``."""
    draft = Draft(name=str(content.get("study_name") or "optuna-study"), command="python train.py", args="flags")
    draft.note("command: the script that trains one configuration; an objective runs as it is, without a file:")
    draft.note("  hpo launch my_script.py:objective --trials 100")
    draft.metric = str(content.get("metric") or "value")
    direction = content.get("direction", "minimize")
    if isinstance(content.get("directions"), list):
        direction = content["directions"][0]
        draft.note("several directions: the first alone is taken")
    set_direction(draft, direction)
    set_sampler(draft, content.get("sampler"))
    if (pruner := content.get("pruner")) is not None:
        set_pruner(draft, pruner)
    if "n_trials" in content:
        draft.budget = {"trials": int(content["n_trials"])}
    if content.get("timeout") is not None:
        draft.budget["seconds"] = float(content["timeout"])
    if "n_jobs" in content:
        draft.note(f"n_jobs: hpo launch FILE --workers {content['n_jobs']}")
    for name, entry in (content.get("distributions") or content.get("search_space") or {}).items():
        _parameter(str(name), entry, draft)
    return draft


def _parameter(name: str, entry: Any, draft: Draft) -> None:
    if isinstance(entry, str):
        entry = json.loads(entry)
    if isinstance(entry, list):
        add_choices(draft, name, entry)  # GridSampler's search space
        return
    table = entry.get("attributes", entry)
    kind = str(entry.get("name") or entry.get("type") or "").lower()
    if "choices" in table:
        add_choices(draft, name, table["choices"])
        return
    step = table.get("step", table.get("q"))
    log = bool(table.get("log")) or "loguniform" in kind
    add_range(draft, name, table["low"], table["high"], whole="int" in kind, log=log, step=step)
