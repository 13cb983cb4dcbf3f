"""The documentation is right where a program can tell: links, tables, commands and study files."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from hpo.cli.main import app
from hpo.studyfile.load import parse_study_file
from hpo.trainers.loading import load_trainers

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[Any]:
    """Every fenced block of a kind in the documentation, named by its page."""
    return [
        pytest.param(match[2], id=f"{path.relative_to(ROOT)}:{path.read_text()[: match.start()].count(chr(10)) + 1}")
        for path in PAGES
        for match in BLOCK.finditer(path.read_text())
        if match[1] == kind
    ]


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "site" / "reference" / "samplers" / "index.html").read_text()
    assert "n_startup_trials" in text
    size = sum(
        path.stat().st_size for path in (tmp_path / "site").rglob("*") if path.is_file() and "search" not in path.parts
    )
    assert size < 1_000_000


@pytest.mark.parametrize("text", blocks(""))
def test_commands_exist_with_their_options(text: str) -> None:
    commands: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] != ["hpo"]:
            continue
        assert words[1] in commands, line
        parameters = commands[words[1]].params
        options = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words[2:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, line


@pytest.mark.parametrize("text", blocks("toml"))
def test_study_files_are_right(text: str) -> None:
    """Whole files only: those that name their trainer, if it comes with the package."""
    content = tomllib.loads(text)
    if content.get("trainer") in ("program", "classifier"):
        load_trainers("")
        parse_study_file(content, "the documentation")
