"""An Experiment of Kubeflow Katib as a study file."""

import re
from collections.abc import Mapping
from typing import Any

from hpo.firstfile.draft import Draft
from hpo.firstfile.entries import add_choices, add_range, set_direction, set_pruner, set_sampler

PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^}]+)\}")


def read(content: Mapping[str, Any]) -> Draft:
    """The draft of an Experiment's table."""
    spec = content.get("spec") or {}
    metadata = content.get("metadata") or {}
    draft = Draft(name=str(metadata.get("name") or metadata.get("generateName") or "experiment").rstrip("-"))
    objective = spec.get("objective") or {}
    draft.metric = str(objective.get("objectiveMetricName", "loss"))
    set_direction(draft, objective.get("type", "minimize"))
    if "goal" in objective:
        draft.target = float(objective["goal"])
        draft.extra += ["", "# stop_at_target = true would end the search at the goal: write it above [space]"]
    set_sampler(draft, (spec.get("algorithm") or {}).get("algorithmName"))
    for setting in (spec.get("algorithm") or {}).get("algorithmSettings") or []:
        if setting.get("name") in ("random_state", "seed"):
            draft.seed = int(setting["value"])
        else:
            draft.note(f"the algorithm's setting {setting.get('name')}: no counterpart was looked for")
    if "maxTrialCount" in spec:
        draft.budget = {"trials": int(spec["maxTrialCount"])}
    if "parallelTrialCount" in spec:
        draft.note(f"parallelTrialCount: hpo launch FILE --workers {spec['parallelTrialCount']}")
    if "maxFailedTrialCount" in spec:
        draft.note("maxFailedTrialCount: no counterpart; a failed trial is tried again max_retries times")
    if early := spec.get("earlyStopping"):
        set_pruner(draft, early.get("algorithmName"))
    for entry in spec.get("parameters") or []:
        _parameter(entry, draft)
    _command(spec.get("trialTemplate") or {}, draft)
    if "metricsCollectorSpec" in spec:
        draft.note("metricsCollectorSpec: metrics are read by the expressions in [metrics]")
    draft.metrics[draft.metric] = re.escape(draft.metric).replace("\\-", "-") + r"[=:]\s*([-+0-9.eE]+)"
    return draft


def _parameter(entry: Mapping[str, Any], draft: Draft) -> None:
    name, kind, space = str(entry["name"]), entry.get("parameterType"), entry.get("feasibleSpace") or {}
    if kind in ("categorical", "discrete"):
        choices = list(space.get("list") or [])
        add_choices(draft, name, [_number(choice) for choice in choices] if kind == "discrete" else choices)
        return
    whole = kind == "int"
    distribution = str(space.get("distribution", "uniform"))
    if "ormal" in distribution:
        draft.note(f"{name}: a normal distribution has no counterpart; its range is searched")
    step = float(space["step"]) if "step" in space else None
    log = distribution.startswith("log")
    add_range(draft, name, space.get("min", 0), space.get("max", 1), whole=whole, log=log, step=step)


def _number(text: Any) -> Any:
    number = float(text)
    return int(number) if number.is_integer() and "." not in str(text) else number


def _command(template: Mapping[str, Any], draft: Draft) -> None:
    names = {entry["name"]: entry.get("reference", entry["name"]) for entry in template.get("trialParameters") or []}
    words = _first_command(template.get("trialSpec") or {})
    if not words:
        draft.command, draft.args = ["python", "train.py"], "flags"
        draft.note("no command was found in trialTemplate: check command")
        return
    filled = [PLACEHOLDER.sub(lambda match: f"{{{names.get(match[1], match[1])}}}", str(word)) for word in words]
    draft.command = filled
    missing = [name for name in draft.entries if not any(f"{{{name}}}" in word for word in filled)]
    draft.args = "flags" if missing else None
    draft.note("the container image and its resources have no counterpart: the command runs on the workers' machines")


def _first_command(table: Any) -> list[Any]:
    """The first list called command, with the args beside it, anywhere in a pod's specification."""
    if isinstance(table, Mapping):
        if isinstance(table.get("command"), list):
            return [*table["command"], *(table.get("args") or [])]
        table = list(table.values())
    if isinstance(table, list):
        for item in table:
            if found := _first_command(item):
                return found
    return []
