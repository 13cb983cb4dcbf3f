"""The parts of the documentation that are made from the program's own tables, so that they cannot age.

A page holds a line ``{{ samplers }}``; when the site is built, mkdocs calls :func:`on_page_markdown`, which puts the
table there. An unknown name between the braces fails the build.
"""

import ast
import inspect
import itertools
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic

MARKER = re.compile(r"^\{\{ ([a-z_]+) \}\}$", re.MULTILINE)


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(header), line(tuple("---" for _ in header)), *map(line, rows)])


def _attribute_docstrings(model: type[Any]) -> dict[str, str]:
    """The text below each field of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in itertools.pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            texts[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return texts


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value!r}`"


def _options(model: type[pydantic.BaseModel]) -> str:
    lines = []
    for name, field in model.model_fields.items():
        default = _default(field)
        lines.append(f"`{name}`{f' ({default})' if default else ''} {field.description or ''}".rstrip())
    return "<br>".join(lines) or "none"


def study_file() -> str:
    """Every key of a study file."""
    from hpo.studyfile.keys import StudyFileKeys

    rows, texts = [], _attribute_docstrings(StudyFileKeys)
    for name in StudyFileKeys.own_keys():
        field = StudyFileKeys.model_fields[name]
        default = field.get_default(call_default_factory=True) if not field.is_required() else None
        simple = isinstance(default, bool | int | float | str) and default != ""
        text = texts[name].replace("``", "`")
        rows.append((f"`{name}`", text, _default(field) if simple or field.is_required() else ""))
    return _table(("key", "meaning", "default"), rows)


def changeable_keys() -> str:
    """The keys that may change when an experiment is launched again."""
    from hpo.studyfile.keys import StudyFileKeys

    return ", ".join(f"`{name}`" for name in StudyFileKeys.keys_that_change_no_trial()) + "."


def samplers() -> str:
    """Every sampler with its options."""
    from hpo.search.sampler_registry import SAMPLERS

    rows = [(f"`{e.name}`", e.description, _options(e.options)) for e in SAMPLERS.values()]
    return _table(("name", "what it does", "options (defaults)"), rows)


def pruners() -> str:
    """Every pruner with its options."""
    from hpo.search.pruner_registry import PRUNERS

    rows = [(f"`{e.name}`", e.description, _options(e.options)) for e in PRUNERS.values()]
    return _table(("name", "what it does", "options (defaults)"), rows)


def _bounds(field: Any) -> str:
    parts = []
    for item in field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (value := getattr(item, name, None)) is not None:
                parts.append(f"{sign} {value}")
    return ", ".join(parts)


def classifier() -> str:
    """Every hyperparameter of the classifier."""
    from hpo.trainers.loading import load_trainers
    from hpo.trainers.registry import TRAINERS

    load_trainers("")
    config = TRAINERS["classifier"].config
    assert config is not None
    rows = [
        (f"`{name}`", field.description or "", _bounds(field), _default(field))
        for name, field in config.model_fields.items()
    ]
    return _table(("name", "meaning", "bounds", "default"), rows)


def metrics() -> str:
    """The metrics of the classifier."""
    from hpo.trainers.loading import load_trainers
    from hpo.trainers.registry import TRAINERS

    load_trainers("")
    rows = [(f"`{name}`", direction or "neither") for name, direction in (TRAINERS["classifier"].metrics or {}).items()]
    return _table(("metric", "better when"), rows)


def commands() -> str:
    """Every command with its arguments and options."""
    import typer

    from hpo.cli.main import app

    root: Any = typer.main.get_command(app)
    parts = []
    for name, command in sorted(root.commands.items()):
        if command.hidden:
            continue
        help_text = (command.help or "").strip().partition("\n\n")[0]
        arguments = " ".join(p.name.upper() for p in command.params if p.param_type_name == "argument")
        parts.append(f"## `hpo {name}{' ' + arguments if arguments else ''}`\n\n{help_text}\n")
        rows = []
        for parameter in command.params:
            if parameter.param_type_name != "option" or parameter.hidden:
                continue
            names = ", ".join(f"`{o}`" for o in [*parameter.opts, *parameter.secondary_opts])
            variable = parameter.envvar if isinstance(parameter.envvar, str) else ""
            rows.append((names, parameter.help or "", f"`{variable}`" if variable else ""))
        if rows:
            parts.append(_table(("option", "meaning", "variable"), rows) + "\n")
    return "\n".join(parts)


def settings() -> str:
    """Every environment variable that a command reads."""
    import typer

    from hpo.cli.main import app

    found: dict[str, tuple[str, str]] = {}
    root: Any = typer.main.get_command(app)
    for command in root.commands.values():
        for parameter in command.params:
            if isinstance(parameter.envvar, str):
                found.setdefault(parameter.envvar, (parameter.help or "", ", ".join(f"`{o}`" for o in parameter.opts)))
    rows = [(f"`{variable}`", text, options) for variable, (text, options) in sorted(found.items())]
    return _table(("variable", "what it sets", "option"), rows)


def failures() -> str:
    """What happened, whose fault, what follows."""
    from hpo.worker.failures import as_markdown

    return as_markdown()


SECTIONS: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (study_file, changeable_keys, samplers, pruners, classifier, metrics, commands, settings, failures)
}


def fill(text: str) -> str:
    """The page's text with every marker replaced. Raises KeyError for a marker that names nothing."""
    return MARKER.sub(lambda match: SECTIONS[match[1]](), text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return fill(markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Called by mkdocs for each page: leaves out indentation and empty lines, but not in blocks of code."""
    parts = re.split(r"(<pre.*?</pre>)", output, flags=re.DOTALL)
    return "".join(part if number % 2 else re.sub(r"\s*\n\s*", "\n", part) for number, part in enumerate(parts))


def on_post_build(config: Any, **_: Any) -> None:
    """Called by mkdocs at the end: leaves out what no page loads (source maps, search in other languages)."""
    assets = Path(config["site_dir"]) / "assets"
    for path in assets.rglob("*.map"):
        path.unlink()
    shutil.rmtree(assets / "javascripts" / "lunr", ignore_errors=True)
