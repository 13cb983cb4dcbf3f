"""``hpo train``: an exported file trained again.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import DataOption, DownloadOption, HomeOption, JsonOption, StorageOption, TrainersOption
from hpo.cli.support import print_json, show
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.export.train_result import TrainResult


def train(
    file: Annotated[Path, typer.Argument(help="An exported file, or a study file with an empty space.")],
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", envvar="HPO_SEEDS", help="Train with N fresh seeds instead of the file's own."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", envvar="HPO_MODEL", help="File to write the trained model to.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder",
            envvar="HPO_TRAIN_FOLDER",
            help="Folder for what the training code writes into run.folder.",
            show_default="a new one in the home",
        ),
    ] = None,
    diagnose: Annotated[
        Path | None,
        typer.Option("--diagnose", envvar="HPO_DIAGNOSE", help="Folder for diagnostics of the trained network."),
    ] = None,
    attach: Annotated[
        bool,
        typer.Option("--attach", envvar="HPO_ATTACH", help="Show the diagnostics with the study in the dashboard."),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            envvar="HPO_TRAIN_RESUME",
            help="Folder for the training's state: the same command goes on from it after an interruption.",
            show_default="an interrupted training starts again",
        ),
    ] = None,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = None,
    download: DownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a configuration and evaluate it on the test set; exits with 1 if an exported value is not reproduced."""
    from hpo.export.threads import restore_threads

    restore_threads(file)  # before anything imports NumPy or torch
    from hpo.export.train_file import train_file
    from hpo.settings import Settings

    if attach and diagnose is None:
        raise UsageError("--attach needs --diagnose FOLDER: there is nothing to attach without it")
    settings = Settings.given(storage=storage, home=home, data_dir=data_dir, trainers=trainers, download=download)

    constants: set[tuple[str, float]] = set()

    def report(seed: int, epoch: int, metrics: dict[str, float]) -> None:
        if not as_json:
            parts = []
            for name, value in metrics.items():
                is_constant = name == "num_parameters"  # a size is the same after each epoch: it is printed once
                if name.startswith("seconds") or (name, value) in constants:
                    continue
                if is_constant:
                    constants.add((name, value))
                parts.append(f"{name} {value:,.0f}" if is_constant else f"{name} {value:.4g}")
            print(f"seed {seed}, epoch {epoch}: {'  '.join(parts)}", file=sys.stderr, flush=True)

    result = train_file(
        file,
        settings,
        seeds=seeds,
        report=report,
        diagnose=diagnose,
        attach=attach,
        model=model,
        folder=folder,
        resume=resume,
    )
    if as_json:
        print_json(result.as_dict())
    else:
        _show(result, diagnose is not None)
        if result.folder is not None:
            show(f"files: {result.folder}")
        if model is not None:
            show(f"model: {model}")
        if diagnose is not None:
            show(f"diagnostics: {diagnose}")
    if not result.is_right:
        raise typer.Exit(1)


def _show(result: "TrainResult", is_diagnosed: bool) -> None:
    """Prints the metrics that a person looks for, their spread over seeds, and the verdict."""
    first = [name for name in (result.metric, "val_accuracy", "test_accuracy") if name in result.names]
    others = [name for name in result.names if name.startswith(("val_", "test_"))]
    for name in dict.fromkeys([*first, *others]):
        mean, spread, num_finite = result.mean(name), result.std(name), len(result.finite(name))
        line = f"{name}: not finite" if mean is None else f"{name}: {mean:.6g}"
        if spread is not None:
            line += f" ± {spread:.3g} (standard deviation, n = {num_finite})"
        if mean is not None and num_finite < len(result.runs):
            line += f"; {len(result.runs) - num_finite} of {len(result.runs)} seeds gave no finite value"
        show(line)
    for run in result.runs:
        if "error" in run:
            show(f"seed {run['seed']} failed: {run['error']}")
    verdict = result.verdict()
    if verdict is not None:
        show(verdict)
        if not result.reproduced and (result.trained_on or {}).get("slots", 1) > 1:
            why = "convolutions depend on it in their last bits; --slots 1 keeps them"
            if is_diagnosed:
                why = "--diagnose trains it alone, which rounds otherwise; without, an MLP gives the same bits"
            show(f"it was trained beside other trials: {why}")
