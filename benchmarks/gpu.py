"""All that has to be measured and tested on a machine with a GPU: one command, in steps of at most nine minutes each.

    python -m benchmarks.gpu --data-dir DATA --out FOLDER            every step that is not done, in order
    python -m benchmarks.gpu --data-dir DATA --out FOLDER --step 3   this step, again if it was done

Each step is a command whose output goes to FOLDER/NN-name.txt; what was done is in FOLDER/record.json, so that the
same command goes on after an interruption. FOLDER/table.md has a row for each step, with the hardware and versions.
``--small`` runs every step with sizes that a CPU does in seconds each: it tests the flow, and measures nothing.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.machine import processor, trained_on

ROOT = Path(__file__).resolve().parent.parent
STEP_SECONDS = 540
STOP_SECONDS = 20
"""What a search that was asked to end gets to give its trials back."""


@dataclass(frozen=True)
class Step:
    """``commands(options)``: run one after the other; ``resumes``: an interrupted one goes on where it was."""

    name: str
    what: str
    commands: Callable[[argparse.Namespace], list[list[str]]]
    resumes: bool = False


def python(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]


def data(options: argparse.Namespace) -> list[object]:
    return ["--data-dir", options.data_dir]


def packed(case: str) -> Callable[[argparse.Namespace], list[list[str]]]:
    def commands(options: argparse.Namespace) -> list[list[str]]:
        sizes: list[object] = ["--slots", 4, 16, 64, 256, "--trials", 256]
        if options.small:
            sizes = ["--slots", 2, "--trials", 4, "--seconds", 0.01, "--processes", 1, "--threads", 1, "--images", 300]
        return [python("-m", "benchmarks.packed", "--case", case, *data(options), *sizes)]

    return commands


def training(options: argparse.Namespace) -> list[list[str]]:
    sizes: list[object] = ["--networks", "mlp", "cnn", "squeeze_expand", "resnet18"]
    if options.small:
        sizes = ["--networks", "mlp", "--images", 300, "--times", 1]
    return [python("-m", "benchmarks.training", *data(options), *sizes)]


def launch(options: argparse.Namespace, file: Path, *more: object) -> list[str]:
    return python("-m", "hpo", "launch", file, "--home", options.out / "home", *data(options), *more)


def study(options: argparse.Namespace, name: str, **values: object) -> Path:
    """A study file of a small search below the output folder; made again, it is the same."""
    small: dict[str, object] = {"dataset": '"digits"', "epochs": 2} if options.small else {}
    fixed = {"dataset": '"mnist"', "network": '"mlp"', "epochs": 10, "batch_size": 128, **small, **values}
    lines = [
        f'name = "{name}"',
        'trainer = "classifier"',
        'metric = "val_accuracy"',
        'samplers = ["random"]',
        f"budget = {{ trials = {4 if options.small else 256} }}",
        f'pruner = "{"none" if options.small else "asha"}"',
        "[fixed]",
        *(f"{key} = {value}" for key, value in fixed.items()),
        "[space]",
        "lr = { low = 1e-3, high = 0.3, log = true }",
    ]
    path: Path = options.out / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def two_workers(options: argparse.Namespace) -> list[list[str]]:
    """The same search with one worker and with two on the same device."""
    more: list[object] = ["--slots", 2] if options.small else []
    return [
        launch(options, study(options, f"workers-{count}"), "--workers", count, *more)
        for count in ((1, 2) if not options.small else (1,))
    ]


def same_bits(options: argparse.Namespace) -> list[list[str]]:
    """A search in the deterministic mode, its best trial exported and trained again."""
    file = study(options, "same-bits", precision='"fp32"', deterministic="true")
    best = options.out / "same-bits-best.toml"
    more: list[object] = ["--slots", 2] if options.small else []
    home: list[object] = ["--home", options.out / "home"]
    return [
        launch(options, file, "--workers", 1, *more),
        python("-m", "hpo", "export", "same-bits", "--output", best, *home),
        python("-m", "hpo", "train", best, *home, *data(options)),
    ]


def report_3(options: argparse.Namespace) -> list[list[str]]:
    if options.small:
        return [launch(options, study(options, "report-3"), "--workers", 1, "--slots", 1)]
    return [launch(options, ROOT / "studies/cifar10_resnet18.toml")]


STEPS = [
    Step("tests", "the tests that need a GPU", lambda options: [python("-m", "pytest", "-q", "tests/gpu")]),
    Step("packed-digits", "packed digits MLP", packed("digits")),
    Step("packed-mnist", "packed MNIST MLP, widths to 2048 and 512, batch 32 to 256", packed("mnist")),
    Step("packed-squeeze", "packed squeeze-expand CNN", packed("squeeze")),
    Step("training", "one network at a time, ResNet-18 among them", training),
    Step("two-workers", "one search with one worker and with two on a GPU", two_workers),
    Step("kills", "a search whose workers are killed", lambda options: [python("-m", "benchmarks.chaos", "--short")]),
    Step("same-bits", "hpo train gives the same bits in the deterministic mode", same_bits),
    Step("report-3", "ResNet-18 on CIFAR-10; goes on each time it is run", report_3, resumes=True),
]


def run(step: Step, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Runs a step and returns its record: ``ok``, ``seconds``, whether it was cut at the limit, and its last lines."""
    log = options.out / f"{number:02d}-{step.name}.txt"
    began, ok, is_cut = time.monotonic(), True, False
    with log.open("a" if step.resumes else "w") as output:
        for command in step.commands(options):
            left = STEP_SECONDS - (time.monotonic() - began)
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            try:
                code = process.wait(max(1.0, left))
            except subprocess.TimeoutExpired:
                is_cut, code = True, _stop(process)
            except BaseException:
                _stop(process)
                raise
            # pytest: 5, no test is there. A search that was cut goes on the next time.
            ok = code in ((0, 5) if step.name == "tests" else (0,)) or (is_cut and step.resumes)
            if not ok or is_cut:
                break
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    seconds = round(time.monotonic() - began, 1)
    return {"ok": ok, "cut": is_cut, "seconds": seconds, "lines": lines[-40:], "finished": ok and not is_cut}


def _stop(process: "subprocess.Popen[bytes]") -> int:
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def hardware() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    facts = trained_on(device, torch.get_num_threads(), 1)
    facts |= {"cores": os.cpu_count(), "python": platform.python_version(), "processor": processor()}
    del facts["slots"]
    return facts


FIGURES = re.compile(r"trial-epochs|packed|times as fast|one at a time|workers|reproduced|passed|failed|slots|epoch")


def table(record: dict[str, Any]) -> str:
    """The record as Markdown: the hardware, a row for each step, and the lines with figures below."""
    facts = ", ".join(f"{name} {value}" for name, value in record["hardware"].items())
    rows = [f"{facts}\n", "| step | what | seconds | result |", "|---|---|---|---|"]
    for number, step in enumerate(STEPS, start=1):
        entry = record["steps"].get(step.name)
        result = "not run" if entry is None else "cut" if entry["cut"] else "ok" if entry["ok"] else "FAILED"
        seconds = "" if entry is None else f"{entry['seconds']:.0f}"
        rows.append(f"| {number} | {step.what} | {seconds} | {result} |")
    for step in STEPS:
        if (entry := record["steps"].get(step.name)) is not None:
            figures = [line for line in entry["lines"] if FIGURES.search(line)]
            rows += ["", f"## {step.name}", "", "```", *figures, "```"]
    return "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--step", type=int, choices=range(1, len(STEPS) + 1), metavar=f"1-{len(STEPS)}")
    parser.add_argument("--small", action="store_true", help="sizes that only test the flow")
    options = parser.parse_args()
    options.out, options.data_dir = options.out.resolve(), options.data_dir.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "record.json"
    record = json.loads(path.read_text()) if path.exists() else {"steps": {}}
    record["hardware"] = hardware()
    chosen = range(1, len(STEPS) + 1) if options.step is None else [options.step]
    for number in chosen:
        step = STEPS[number - 1]
        if options.step is None and record["steps"].get(step.name, {}).get("finished"):
            print(f"step {number}, {step.name}: done before", flush=True)
            continue
        print(f"step {number}, {step.name}: {step.what}", flush=True)
        entry = run(step, number, options)
        record["steps"][step.name] = entry
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(record, indent=1))
        aside.replace(path)
        (options.out / "table.md").write_text(table(record))
        state = "cut at its limit" if entry["cut"] else "ok" if entry["ok"] else "FAILED"
        print(f"step {number}, {step.name}: {state} after {entry['seconds']:.0f} s", flush=True)
    failed = [step.name for step in STEPS if not record["steps"].get(step.name, {"ok": True})["ok"]]
    print(f"table: {options.out / 'table.md'}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
