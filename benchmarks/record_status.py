"""Records what a launch's statuses say over time, for tests of the estimated time left.

    python -m benchmarks.record_status studies/digits_mlp.toml OUTPUT.json --workers 2

The file holds a list of [seconds since the start, status], of which only what an estimate may use is kept.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import hpo

KEPT = ("sampler", "repeat", "budget", "states", "finished", "epochs", "epochs_per_trial", "seconds_left")


class Recorder:
    """A progress that keeps each status with its time; see :class:`hpo.launchers.registry.Progress`."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.rows: list[tuple[float, dict[str, Any]]] = []

    def update(self, status: dict[str, Any]) -> None:
        studies = [{name: study.get(name) for name in KEPT} for study in status["studies"]]
        self.rows.append((round(time.monotonic() - self.started, 2), {"studies": studies}))

    def line(self, text: str) -> None:
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study_file", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int)
    given = parser.parse_args()
    content = given.study_file.read_text()
    if given.repeats is not None:
        content = f"repeats = {given.repeats}\n{content}"
    recorder = Recorder()
    hpo.launch(content, workers=given.workers, progress=recorder)
    given.output.write_text(json.dumps(recorder.rows))


if __name__ == "__main__":
    main()
