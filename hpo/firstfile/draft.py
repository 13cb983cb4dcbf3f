"""A study file in the making, and its text: TOML with a comment on what cannot be guessed."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class Draft:
    """The keys that are known so far.

    Attributes:
        entries: parameter -> its entry of ``[space]``, as a table or a list of choices.
        comments: parameter -> a comment on its line.
        notes: one line for each thing without a counterpart, printed at the top of the file.
        extra: further lines of TOML after ``[space]``, mostly commented out.
    """

    name: str = "my-search"
    trainer: str | None = None
    command: str | list[str] | None = None
    args: str | None = None
    metric: str = "loss"
    direction: str | None = None
    target: float | None = None
    samplers: list[str] = field(default_factory=lambda: ["tpe"])
    budget: dict[str, Any] = field(default_factory=lambda: {"trials": 50})
    pruner: Any = None
    seed: int | None = None
    metrics: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        """Adds a note once."""
        if what not in self.notes:
            self.notes.append(what)


def toml(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key(name)} = {toml(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return repr(value)


def key(name: str) -> str:
    """A key, quoted if it has to be; the dots of a dotted one stay."""
    return ".".join(part if BARE.fullmatch(part) else json.dumps(part) for part in name.split("."))


def text(draft: Draft) -> str:
    """The file: what each key is for stands beside it, what has no counterpart at the top."""
    lines = [f"# {note}" for note in draft.notes]
    if lines:
        lines = ["# Without a counterpart, or to be checked:", *lines, ""]
    lines.append(f"name = {toml(draft.name)}")
    lines.append(f"trainer = {toml(draft.trainer or 'program')}")
    if draft.command is not None:
        lines.append(f"command = {toml(draft.command)}")
    if draft.args is not None:
        lines.append(f"args = {toml(draft.args)}  # flags: --name=value; hydra: name=value; none: the file $HPO_PARAMS")
    lines.append(f"metric = {toml(draft.metric)}")
    if draft.direction is not None:
        lines.append(f"direction = {toml(draft.direction)}")
    if draft.target is not None:
        lines.append(f"target = {toml(draft.target)}")
    lines.append(f"samplers = {toml(draft.samplers)}  # several are compared: hpo list")
    lines.append(f"budget = {toml(draft.budget)}  # of each search; or {{ epochs = N }}, {{ hours = N }}")
    if draft.pruner is not None:
        lines.append(f"pruner = {toml(draft.pruner)}")
    else:
        lines.append('# pruner = "asha"  # ends trials that fall behind, if they report a metric each epoch')
    if draft.seed is not None:
        lines.append(f"seed = {draft.seed}")
    lines.append("# repeats = 5  # independent searches with each sampler: a comparison needs several")
    if draft.metrics:
        lines += [
            "",
            "[metrics]  # how they are read from the program's output; or hpo.report(name=value) in the script",
        ]
        lines += [f"{key(name)} = {toml(pattern)}" for name, pattern in draft.metrics.items()]
    if draft.fixed:
        lines += ["", "[fixed]", *(f"{key(name)} = {toml(value)}" for name, value in draft.fixed.items())]
    lines += ["", "[space]"]
    for name, entry in draft.entries.items():
        comment = f"  # {draft.comments[name]}" if name in draft.comments else ""
        lines.append(f"{key(name)} = {toml(entry)}{comment}")
    lines += draft.extra
    return "\n".join(lines) + "\n"
