"""A sweep of Weights & Biases (``sweep.yaml``) as a study file."""

import math
from collections.abc import Mapping
from typing import Any

from hpo.firstfile.draft import Draft
from hpo.firstfile.entries import add_choices, add_range, normal, set_direction, set_sampler

KNOWN = {
    "program", "method", "metric", "parameters", "early_terminate", "run_cap", "command", "name", "project", "entity",
    "description", "controller",
}  # fmt: skip


def read(content: Mapping[str, Any]) -> Draft:
    """The draft of a sweep's table."""
    draft = Draft(name=str(content.get("name") or content.get("project") or "sweep"))
    metric = content.get("metric") or {}
    draft.metric = str(metric.get("name", "loss"))
    set_direction(draft, metric.get("goal", "minimize"))
    if "target" in metric:
        draft.target = float(metric["target"])
    set_sampler(draft, content.get("method"))
    if "run_cap" in content:
        draft.budget = {"trials": int(content["run_cap"])}
    elif content.get("method") != "grid":
        draft.note("a sweep has no number of trials (wandb agent --count): check budget")
    _command(content, draft)
    _parameters(content.get("parameters") or {}, "", draft)
    _early_terminate(content.get("early_terminate") or {}, draft)
    for key in content:
        if key not in KNOWN:
            draft.note(f"{key}: no counterpart")
    if "controller" in content:
        draft.note("controller: no counterpart; hpo launch runs the search")
    return draft


def _command(content: Mapping[str, Any], draft: Draft) -> None:
    program = str(content.get("program", "train.py"))
    draft.command, draft.args = ["python", program], "flags"
    given = content.get("command")
    if not isinstance(given, list):
        return
    words: list[str] = []
    for word in map(str, given):
        if word in ("${args}", "${args_no_hyphens}", "${args_no_boolean_flags}", "${args_json}", "${args_json_file}"):
            draft.args = "hydra" if word == "${args_no_hyphens}" else "flags"
            if "json" in word or "boolean" in word:
                draft.note(f"{word} has no counterpart; parameters come as --name=value, and as JSON in $HPO_PARAMS")
        elif word == "${env}":
            continue
        else:
            words.append({"${interpreter}": "python", "${program}": program}.get(word, word))
    draft.command = [word for word in words if not word.endswith("/env")] or draft.command


def _parameters(table: Mapping[str, Any], prefix: str, draft: Draft) -> None:
    for short, entry in table.items():
        name = f"{prefix}{short}"
        if not isinstance(entry, Mapping):
            draft.fixed[name] = entry
        elif "parameters" in entry:
            _parameters(entry["parameters"], f"{name}.", draft)
        elif "value" in entry:
            add_choices(draft, name, [entry["value"]])
        elif "values" in entry:
            add_choices(draft, name, entry["values"], grid="probabilities" not in entry)
            if "probabilities" in entry:
                draft.note(f"{name}: probabilities have no counterpart; all choices are as likely")
        else:
            _distribution(name, entry, draft)


def _distribution(name: str, entry: Mapping[str, Any], draft: Draft) -> None:
    kind = str(entry.get("distribution", ""))
    if "normal" in kind:
        mean, deviation = float(entry.get("mu", 0.0)), float(entry.get("sigma", 1.0))
        if "log" in kind:
            draft.note(f"{name}: a log-normal distribution has no counterpart; the log range holds 3 deviations")
            add_range(draft, name, math.exp(mean - 3 * deviation), math.exp(mean + 3 * deviation), log=True)
        else:
            normal(draft, name, mean, deviation)
        return
    low, high = entry.get("min", 0.0), entry.get("max", 1.0)
    if "min" not in entry or "max" not in entry:
        draft.note(f"{name}: min or max is missing; check its range")
    whole = kind == "int_uniform" or (not kind and isinstance(low, int) and isinstance(high, int))
    if kind in ("log_uniform", "q_log_uniform"):
        low, high = math.exp(float(low)), math.exp(float(high))
    if kind.startswith("inv_log"):
        draft.note(f"{name}: {kind} has no counterpart; it is a log range")
    step = entry.get("q", 1) if kind.startswith("q_") and "log" not in kind else None
    add_range(draft, name, low, high, whole=whole, log="log" in kind, step=step)


def _early_terminate(table: Mapping[str, Any], draft: Draft) -> None:
    if not table:
        return
    if table.get("type") != "hyperband":
        draft.note(f"early_terminate of type {table.get('type')!r} has no counterpart and is left out")
        return
    pruner: dict[str, Any] = {"name": "asha", "reduction_factor": int(table.get("eta", 3))}
    if "min_iter" in table:
        pruner["min_epochs"] = int(table["min_iter"])
    draft.pruner = pruner
    for key in ("s", "max_iter", "strict"):
        if key in table:
            draft.note(f"early_terminate.{key}: no counterpart")
