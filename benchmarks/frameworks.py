"""20 trials with 2 workers of each kind of a user's code, by ``hpo launch`` and by plain Optuna on the same Postgres.

The code is that of ``examples/``. Plain Optuna runs an objective as it is; a script it runs in an objective of ten
lines that starts it and reads its last value, without pruning. Times are of the whole command, by the clock, in turn. A
framework that is not installed is left out: ``pip install 'hpo-service[frameworks]'``.
"""

import argparse
import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hpo.database.storage import open_storage

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True)
class Kind:
    """One row.

    Attributes:
        path: below ``examples/``: a file with an objective, or a folder with study.toml and train.py.
        changed: lines of the code that differ from the same code without a search.
        direction: of the study.
        pattern: what plain Optuna reads of a script's output.
        arguments: of the script under plain Optuna, as a Python expression over ``trial``.
        needs: the module that has to be installed.
    """

    name: str
    path: str
    changed: int
    direction: str
    pattern: str = ""
    arguments: str = ""
    needs: str = "sklearn"


KINDS = (
    Kind(
        "a script, its output read",
        "program_output",
        0,
        "maximize",
        r"validation accuracy ([0-9.]+)",
        "f'--lr={trial.suggest_float(\"lr\", 0.01, 1.0, log=True)}', "
        "f'--batch-size={trial.suggest_categorical(\"batch\", [32, 64, 128])}', '--epochs=3'",
    ),
    Kind("an Optuna objective", "objective.py", 0, "maximize"),
    Kind(
        "Lightning, a script",
        "lightning_program",
        3,
        "minimize",
        r"val_loss[^0-9]+([0-9.e-]+)",
        "f'--lr={trial.suggest_float(\"lr\", 1e-4, 1e-1, log=True)}', "
        "f'--width={trial.suggest_int(\"width\", 4, 32)}', '--epochs=5'",
        "lightning",
    ),
    Kind("Lightning, an objective", "lightning_module.py", 2, "minimize", needs="lightning"),
    Kind("Hugging Face, an objective", "hugging_face.py", 2, "minimize", needs="transformers"),
)

PLAIN = """
import importlib.util, re, subprocess, sys
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
address, name, direction, kind, trials = sys.argv[1:]

def script(trial):
    command = [sys.executable, "train.py", {arguments}]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.findall({pattern!r}, output.stdout + output.stderr)
    return float(found[-1]) if found else 0.0

if kind == "script":
    objective = script
else:
    # Without the study that the file itself runs.
    source = open(kind).read().partition("\\nstudy = ")[0]
    namespace = {{"__name__": "objective"}}
    exec(compile(source, kind, "exec"), namespace)
    objective = namespace["objective"]
study = optuna.create_study(study_name=name, storage=address, direction=direction, load_if_exists=True,
                            pruner=optuna.pruners.MedianPruner())
study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(int(trials), states=None)])
"""


def ours(kind: Kind, folder: Path, home: Path, trials: int, number: int) -> float:
    """Seconds of ``hpo launch``."""
    common = ["--workers", "2", "--home", str(home)]
    if kind.path.endswith(".py"):
        shutil.copy(EXAMPLES / kind.path, folder)
        options = ["--trials", str(trials), "--direction", kind.direction, "--pruner", "median"]
        command = [f"{kind.path}:objective", "--name", f"ours-{number}", *options]
    else:
        shutil.copytree(EXAMPLES / kind.path, folder, dirs_exist_ok=True)
        text = (folder / "study.toml").read_text()
        text = re.sub(r"trials = \d+", f"trials = {trials}", text)
        (folder / "study.toml").write_text(re.sub(r'^name = ".*"', f'name = "ours-{number}"', text))
        command = ["study.toml"]
    return _seconds([[sys.executable, "-m", "hpo", "launch", *command, *common]], folder)


def plain(kind: Kind, folder: Path, address: str, trials: int, number: int) -> float:
    """Seconds of two processes of plain Optuna's."""
    if kind.path.endswith(".py"):
        shutil.copy(EXAMPLES / kind.path, folder)
    else:
        shutil.copytree(EXAMPLES / kind.path, folder, dirs_exist_ok=True)
    source = PLAIN.format(arguments=kind.arguments, pattern=kind.pattern)
    what = kind.path if kind.path.endswith(".py") else "script"
    command = [sys.executable, "-c", source, address, f"plain-{number}", kind.direction, what, str(trials)]
    return _seconds([command, command], folder)


def _seconds(commands: list[list[str]], folder: Path) -> float:
    started = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for command in commands
    ]
    for process in processes:
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{process.args[:4]!r} ended with {process.returncode}: {output.decode()[-2000:]}")
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'':28} {'lines':>5} {'hpo':>8} {'Optuna':>8} {'ratio':>6}   ({options.trials} trials, median seconds)")
    with tempfile.TemporaryDirectory() as home:
        storage = open_storage(home=home)
        number = 0
        for kind in KINDS:
            if importlib.util.find_spec(kind.needs) is None:
                print(f"{kind.name:28} {kind.changed:5}   {kind.needs} is not installed")
                continue
            times: list[tuple[float, float]] = []
            for _ in range(options.rounds):
                number += 1
                with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
                    own = ours(kind, Path(one), Path(home), options.trials, number)
                    theirs = plain(kind, Path(two), storage.secret_address, options.trials, number)
                    times.append((own, theirs))
            own, theirs = (statistics.median(column) for column in zip(*times, strict=True))
            print(f"{kind.name:28} {kind.changed:5} {own:8.1f} {theirs:8.1f} {own / theirs:6.2f}", flush=True)
        storage.engine.dispose()


if __name__ == "__main__":
    main()
