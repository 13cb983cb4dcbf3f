"""``hpo compare``: the tables and verdicts of one experiment, or of several.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import DataOption, DownloadOption, HomeOption, JsonOption, StorageOption, TrainersOption

if TYPE_CHECKING:
    from hpo.compare.report import Train
    from hpo.database.storage import Storage
    from hpo.settings import Settings


def compare(
    experiments: Annotated[list[str], typer.Argument(help="The experiment; several are ranked over tasks.")],
    html: Annotated[
        Path | None, typer.Option("--html", envvar="HPO_HTML", help="Write one self-contained page to this file.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", envvar="HPO_CSV", help="Write the tables to this folder.")
    ] = None,
    retrain: Annotated[
        int,
        typer.Option(
            "--retrain",
            envvar="HPO_RETRAIN",
            metavar="N",
            help="Train each sampler's best configuration with N fresh seeds: selection bias, test values, noise.",
        ),
    ] = 0,
    publish: Annotated[
        bool, typer.Option("--publish", envvar="HPO_PUBLISH", help="Put figures and notes into Optuna's own pages.")
    ] = False,
    storage: StorageOption = None,
    home: HomeOption = None,
    data_dir: DataOption = None,
    trainers: TrainersOption = None,
    download: DownloadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the samplers of an experiment: which was better, by how much, at what cost, and is it chance."""
    from rich.console import Console

    from hpo.compare import output
    from hpo.compare import report as reports
    from hpo.compare.publish import publish as publish_comparison
    from hpo.database.storage import open_storage
    from hpo.errors import UsageError
    from hpo.settings import Settings

    if html is not None and not html.parent.is_dir():
        raise UsageError(f"--html {html}: there is no folder {html.parent}")
    settings = Settings.given(storage=storage, home=home, data_dir=data_dir, trainers=trainers, download=download)
    opened = open_storage(settings.storage, home=settings.home)
    train = trainer_of(opened, settings) if retrain else None
    found = reports.compare(opened, experiments, retrain=retrain, train=train)
    if html is not None:
        output.write_html(found, html)
    if csv is not None:
        output.write_csv(found, csv)
    if publish:
        for comparison in found.experiments:
            publish_comparison(opened, comparison)
    if as_json:
        print(output.dumps(found))
        return
    output.print_tables(found, Console(width=None if sys.stdout.isatty() else 160))
    for path in filter(None, (html, csv)):
        print(f"written: {path}")


def trainer_of(storage: "Storage", settings: "Settings") -> "Train":
    """What trains a configuration of an experiment with given seeds, in this process."""
    from hpo.experiment.experiment import load_experiment
    from hpo.export.retrain import train_config
    from hpo.trainers.loading import load_trainers

    load_trainers(settings.trainers)

    def train(experiment: str, given: Mapping[str, Any], seeds: Sequence[int]) -> list[dict[str, float]]:
        def report(seed: int, epoch: int, metrics: dict[str, float]) -> None:
            number = list(seeds).index(seed) + 1
            print(f"\r{experiment}: seed {number} of {len(seeds)}, epoch {epoch} ", end="", file=sys.stderr, flush=True)

        file = load_experiment(storage, experiment).study_file
        try:
            return train_config(file, file.merge(given), seeds, settings, report)
        finally:
            print(file=sys.stderr)

    return train
