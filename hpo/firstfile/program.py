"""A first study file for a program: placeholders from what it prints for ``--help``, as argparse does."""

import ast
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import UsageError
from hpo.firstfile.draft import Draft
from hpo.firstfile.entries import add_choices, add_range
from hpo.trainers.program_command import placeholders

VALUE = r"\{[^}]*\}|\[[^\]]*\]|<[^>]+>|[A-Z][\w.]*|[a-z]+(?=\s{2,})"
OPTION = re.compile(
    r"^\s{1,8}(?:-\w(?:[ ,]+[\w<>{},.]+)??,?\s+)?--([A-Za-z][\w-]*)(?:,\s*--?[\w-]+)*"
    rf"(?:[= ]+({VALUE}))?(?:\s+(.*))?$"
)
DEFAULT = re.compile(r"[(\[]?default(?:s to|:|=)?\s*:?\s*([^\s)\],;]+)", re.IGNORECASE)
HELP_SECONDS = 60.0
NOT_SEARCHED = re.compile(
    r"^(help|version|seed|random.seed|device|gpus?|workers|num.workers|log.*|save.*|out.*|data.*|path.*|dir.*|.*.dir|"
    r".*.path|name|resume.*|checkpoint.*|verbose|quiet|wandb.*|port|host|config|dry.run|no.*|download|test.*|epochs?|"
    r"max.epochs|num.epochs|steps)$"
)
"""Options that say where and how long, not what is trained."""


@dataclass
class Option:
    """An option of the program as its help shows it."""

    name: str
    metavar: str | None
    text: str

    @property
    def default(self) -> Any:
        found = DEFAULT.search(self.text)
        if found is None:
            return None
        try:
            return ast.literal_eval(found[1].strip("'\"") if found[1][:1] in "'\"" else found[1])
        except (ValueError, SyntaxError):
            return found[1].strip("'\".")

    @property
    def choices(self) -> list[Any] | None:
        if self.metavar and self.metavar[0] in "{[":
            inner = re.split(r"[,|]", self.metavar[1:-1])
            return [_plain(word) for word in inner] if len(inner) > 1 else None
        return None


def _plain(word: str) -> Any:
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return word


def draft_for(command: Sequence[str]) -> Draft:
    """The draft for a command such as ``["python", "train.py"]``. Raises UsageError if its help cannot be read."""
    words = ["python", *command] if command and command[0].endswith(".py") else list(command)
    stem = next((Path(word).stem for word in reversed(words) if word.endswith(".py")), Path(words[0]).stem)
    draft = Draft(name=f"{stem}-search".replace("_", "-"))
    options = read_options(help_of(words))
    given = " ".join(words)
    added, others = [], []
    for option in options:
        if f"--{option.name}" in given or option.name in placeholders(words):
            continue
        name = option.name.replace("-", "_")
        if option.name in ("seed", "random-seed"):
            added += [f"--{option.name}", "{seed}"]
            continue
        if _add(draft, name, option):
            added += [f"--{option.name}", f"{{{name}}}"]
        elif option.name not in ("help", "version"):
            others.append(
                f"# --{option.name} {option.metavar or ''}".rstrip() + (f"  {option.text}" if option.text else "")
            )
    draft.command = " ".join([*words, *added])
    if not draft.entries:
        add_range(draft, "lr", 0.0001, 0.1, log=True, comment="no option with a number was found: name yours")
        draft.command += " --lr {lr}"
        draft.note("command: its --help shows no option with a number; name the parameters yourself")
    draft.metric, draft.direction = "val_accuracy", "maximize"
    draft.metrics = {"val_accuracy": r"val[_ ]acc(?:uracy)?[:= ]+([0-9.]+)"}
    draft.note("metric, direction and the expression in [metrics]: what the program prints; hpo.report(…) needs none")
    if others:
        draft.extra += ["", "# Options that are not searched; write one into command to set it:", *others]
    return draft


def help_of(words: Sequence[str]) -> str:
    """What the command prints for ``--help``."""
    try:
        ended = subprocess.run(
            [*words, "--help"],
            capture_output=True,
            text=True,
            timeout=HELP_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{' '.join(words)} --help cannot be run: {error}") from None
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise UsageError(f"{' '.join(words)} --help ended with exit code {ended.returncode}: {last}")
    return ended.stdout or ended.stderr


def read_options(text: str) -> list[Option]:
    """The options in a help text, each with its metavar and its description."""
    options: list[Option] = []
    for line in text.splitlines():
        line = line.strip("│|").rstrip()
        if found := OPTION.match(line):
            options.append(Option(found[1], found[2], (found[3] or "").strip()))
        elif options and line.startswith("        "):
            options[-1].text = f"{options[-1].text} {line.strip()}".strip()
    return options


def _add(draft: Draft, name: str, option: Option) -> bool:
    default = option.default
    if NOT_SEARCHED.match(option.name.replace("-", "_").replace("_", ".")) or NOT_SEARCHED.match(option.name):
        return False
    about = f"default {default!r}" if default is not None else "no default in its help: check the range"
    if (choices := option.choices) is not None:
        add_choices(draft, name, choices)
    elif isinstance(default, bool) or option.metavar is None:
        return False
    elif isinstance(default, int) and default > 0:
        add_range(draft, name, max(1, default // 4), default * 4, whole=True, log=default >= 8)
    elif isinstance(default, float) and 0.5 <= default < 1:
        add_range(draft, name, 0.5, 0.999)
    elif isinstance(default, float) and default > 0:
        add_range(draft, name, default / 10, default * 10, log=True)
    elif isinstance(default, int | float):
        add_range(draft, name, 0.0, 0.5)
    elif default is None and re.search(r"lr|rate|decay|momentum|dropout", name):
        add_range(draft, name, 0.0001, 0.1, log=True)
    else:
        return False
    draft.comments[name] = f"{about}{f'; {option.text}' if option.text else ''}"
    return True
