"""What people write who know another tool, and the line that means the same in a study file."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from hpo.search.sampler_registry import SAMPLERS
from hpo.studyfile.validation import shown

USUAL_NAMES = {
    "bayes": "tpe",
    "bayesian": "tpe",
    "bayesopt": "gp",
    "bohb": "tpe",
    "hyperopt": "tpe",
    "gpei": "gp",
    "cma": "cmaes",
    "cmaes": "cmaes",
    "gridsearch": "grid",
    "bruteforce": "grid",
    "randomsearch": "random",
    "sobol": "qmc",
    "quasimontecarlo": "qmc",
    "nop": "none",
    "successivehalving": "asha",
    "asynchyperband": "asha",
    "medianstopping": "median",
    "medianstop": "median",
    "medianstoppingrule": "median",
    "earlystopping": "patient",
}

KEYS = {
    "n_trials": "budget = { trials = VALUE }",
    "num_trials": "budget = { trials = VALUE }",
    "num_samples": "budget = { trials = VALUE }",
    "max_trials": "budget = { trials = VALUE }",
    "maxtrialcount": "budget = { trials = VALUE }",
    "run_cap": "budget = { trials = VALUE }",
    "trials": "budget = { trials = VALUE }",
    "timeout": "budget = { seconds = VALUE }",
    "time_budget_s": "budget = { seconds = VALUE }",
    "walltime_limit": "budget = { seconds = VALUE }",
    "hours": "budget = { hours = VALUE }",
    "max_epochs": "budget = { epochs = VALUE }, or epochs = VALUE in [fixed]",
    "epochs": "epochs = VALUE in [fixed]",
    "search_space": "[space], a table with an entry for each parameter",
    "parameters": "[space], a table with an entry for each parameter",
    "params": "[space], a table with an entry for each parameter",
    "param_space": "[space], a table with an entry for each parameter",
    "hyperparameters": "[space], a table with an entry for each parameter",
    "constants": "[fixed], a table of values",
    "sampler": "samplers = [VALUE]",
    "algorithm": 'samplers = ["tpe"]',
    "search_alg": 'samplers = ["tpe"]',
    "method": 'samplers = ["tpe"]',
    "scheduler": 'pruner = "asha"',
    "early_terminate": 'pruner = "hyperband"',
    "early_stopping": 'pruner = "patient"',
    "n_startup_trials": 'samplers = [{ name = "tpe", n_startup_trials = VALUE }]',
    "study_name": "name = VALUE",
    "experiment_name": "name = VALUE",
    "goal": 'direction = "minimize" or "maximize"',
    "mode": 'direction = "minimize" or "maximize"',
    "objective": 'metric = "…" and direction = "minimize" or "maximize"',
    "n_jobs": "the option --workers of hpo launch",
    "parallel": "the option --workers of hpo launch",
    "max_concurrent": "the option --workers of hpo launch",
    "workers": "the option --workers of hpo launch",
    "storage": "the option --storage of hpo launch",
    "random_state": "seed = VALUE",
    "n_repeats": "repeats = VALUE",
    "seeds": "repeats = N, or seed = N",
    "enqueue": "[[try_first]]",
}
"""Keys of other tools -> what to write; VALUE stands for the given value."""

LOW = ("low", "min", "minimum", "lower", "min_value", "lo", "start", "from")
HIGH = ("high", "max", "maximum", "upper", "max_value", "hi", "stop", "end", "to")
STEP = ("step", "q", "quantum", "step_size")
CHOICES = ("choices", "values", "options", "categories", "categorical", "list", "feasible")
KIND = (
    "distribution",
    "type",
    "dtype",
    "scale",
    "prior",
    "log_scale",
    "kind",
    "parameter_type",
    "int",
    "integer",
    "base",
)
FUNCTIONS = {
    "uniform": "",
    "quniform": "step",
    "loguniform": "log",
    "log_uniform": "log",
    "qloguniform": "log",
    "logrange": "log",
    "suggest_float": "",
    "suggest_int": "",
    "range": "",
    "interval": "",
    "int": "",
    "float": "",
    "randint": "randint",
    "choice": "choices",
    "grid_search": "choices",
    "categorical": "choices",
}
"""Functions of other tools that make a parameter -> what of a range they are."""
LISTS = {*CHOICES, "grid", "when"}
"""Keys of a parameter whose values are lists or tables."""

KNOWN = ("low", "high", "step", "choices", "log", "grid", "when")


def usual_name(name: Any, table: Iterable[str]) -> str | None:
    """The sampler or pruner that a name of another tool means: ``TPESampler``, ``MedianPruner``, ``SobolSampler``."""
    if not isinstance(name, str):
        return None
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for suffix in ("sampler", "pruner", "search", "optimizer", "scheduler"):
        plain = plain.removesuffix(suffix) or plain
    names = {re.sub(r"[^a-z0-9]", "", known): known for known in table}
    usual = names.get(plain) or USUAL_NAMES.get(plain)
    return usual if usual in names.values() else None


def instead_of_key(key: str, value: Any) -> str | None:
    """What to write instead of a key that other tools have, or None."""
    instead = KEYS.get(key.lower())
    if key.lower() == "sampler" and (usual := usual_name(value, SAMPLERS)) is not None:
        value = usual
    given = shown(value).replace("'", '"') if isinstance(value, str | int | float) else "…"
    return None if instead is None else f"write {instead.replace('VALUE', given)}"


def instead_of_entry(name: str, entry: Mapping[str, Any]) -> str | None:
    """The entry of ``[space]`` that an entry with keys of other tools means, or None."""
    if is_function(entry):
        function, arguments = next(iter(entry.items()))
        return f"{function}: no key of a parameter; write {_of_function(name, function, arguments)}"
    if entry.keys() == {"value"}:
        return f"a single value is not searched; write {name} = {shown(entry['value'])} in [fixed]".replace("'", '"')
    foreign = [key for key in entry if key in (*LOW, *HIGH, *STEP, *CHOICES, *KIND) and key not in KNOWN]
    if not foreign:
        return None

    def first(keys: tuple[str, ...]) -> Any:
        return next((entry[key] for key in keys if key in entry), None)

    low, high, choices = first(LOW), first(HIGH), first(CHOICES)
    kinds = " ".join(str(entry[key]).lower() for key in KIND if key in entry)
    parts = []
    if isinstance(choices, list):
        parts.append(f"choices = {shown(choices)}")
    elif low is not None and high is not None:
        parts += [f"low = {shown(low)}", f"high = {shown(high)}"]
        if entry.get("log") is True or "log" in kinds or entry.get("log_scale") is True:
            parts.append("log = true")
        if (step := first(STEP)) is not None:
            parts.append(f"step = {shown(step)}")
    else:
        parts = ["low = …", "high = …"]
    entry_text = f"{{ {', '.join(parts)} }}".replace("'", '"')
    return f"{', '.join(foreign)}: no key of a parameter; write {name} = {entry_text}"


def is_function(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is a function of another tool, such as ``{ loguniform = [0.001, 0.1] }``."""
    return len(entry) == 1 and all(key.lower() in FUNCTIONS and isinstance(entry[key], list) for key in entry)


def instead_of_text(name: str, text: str) -> str | None:
    """The entry that a text means, such as ``loguniform(0.001, 0.1)`` or ``0.1..1``, or None."""
    number = r"([+-]?[0-9.]+?(?:[eE][+-]?[0-9]+)?)"
    if (match := re.fullmatch(rf"\s*{number}\s*(?:\.\.\.?|-|to|:)\s*{number}\s*", text)) is not None:
        return f"write {name} = {{ low = {match[1]}, high = {match[2]} }}"
    if (match := re.fullmatch(r"(?:\w+\.)*(\w+)\(\s*(.*?)\s*\)", text)) is None or match[1].lower() not in FUNCTIONS:
        return None
    try:
        arguments = tomllib.loads(f"a = [{match[2].removeprefix('[').removesuffix(']')}]")["a"]
    except ValueError:
        return None
    return f"write {_of_function(name, match[1], arguments)}"


def _of_function(name: str, function: str, arguments: list[Any]) -> str:
    """The entry for the arguments of a function, in the order that they have everywhere: low, high, step."""
    kind = FUNCTIONS[function.lower()]
    if kind == "choices" or len(arguments) < 2:
        parts = [f"choices = {shown(arguments)}"]
    else:
        low, high = arguments[:2]
        if kind == "randint" and isinstance(high, int):
            high -= 1  # the upper end of randint is not drawn
        parts = [f"low = {shown(low)}", f"high = {shown(high)}"]
        parts += ["log = true"] if kind == "log" else []
        parts += [f"step = {shown(arguments[2])}"] if len(arguments) > 2 and kind != "log" else []
    return f"{name} = {{ {', '.join(parts)} }}".replace("'", '"')


def not_a_study_file(name: str, text: str = "") -> str | None:
    """Why a file in another language is no study file, and what is; ``text`` if it could not be read as TOML."""
    suffix = name.rpartition(".")[2].lower()
    example = 'name = "mnist", trainer = "classifier", metric = "val_accuracy", a line each'
    if suffix in ("yaml", "yml") or re.match(r"\s*(#.*\s)*(---\s|[A-Za-z_]+:\s)", text):
        return f"is YAML; a study file is TOML or JSON: {example}, and key = value in place of key: value"
    if suffix in ("py", "ipynb"):
        return (
            f"is a program; a study file is TOML and names the trainer: {example}; "
            f"your module is imported with --trainers {name if suffix == 'py' else 'MODULE'}"
        )
    return None
