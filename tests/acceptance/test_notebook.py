"""``examples/notebook.ipynb``, executed by a kernel as a person would, with worker processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import REPOSITORY

EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
try:
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
finally:
    nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook(environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    notebook = REPOSITORY / "examples" / "notebook.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(notebook), str(tmp_path / "executed.ipynb")],
        env={**environment, "HPO_TRAINERS": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / "executed.ipynb").read_text())["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    shown = [_text(output, "text/html") for output in outputs if "text/html" in output.get("data", {})]
    tables = {caption: html for html in shown for caption in ("distance", "descent") if f"<caption>{caption}<" in html}
    assert set(tables) == {"distance", "descent"}
    assert tables["distance"].count("<tr>") == 7  # the head and 2 samplers of 3 repeats
    assert any("params_x" in html for html in shown), "the data frame"
    assert any("Final values" in html for html in shown), "the comparison"
    plain = [_text(output, "text/plain") for output in outputs if "data" in output]
    assert "True" in plain, "the exported configuration reproduces"
    assert "['distance', 'descent']" in plain
    printed = "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")
    assert "distance is finished already" in printed
    lines = [text for text in plain if text.startswith("distance: ") and "finished" in text]
    assert len(lines) == 1, "progress is one line that is updated"
    assert lines[0].startswith("distance: 72 finished")


def _text(output: dict[str, Any], kind: str) -> str:
    return "".join(output["data"].get(kind, ""))
