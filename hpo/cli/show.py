"""``hpo show`` and ``hpo workers``: one trial with all that is known of it; what each worker does.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

from typing import Annotated, Any

import typer

from hpo.cli.options import CheckpointOption, HomeOption, JsonOption, StorageOption
from hpo.cli.support import command_for, load_named, print_json, show


def show_trial(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    trial: Annotated[
        str, typer.Argument(help="The trial's number; SAMPLER/REPEAT/NUMBER if there are several studies.")
    ],
    storage: StorageOption = None,
    home: HomeOption = None,
    checkpoint_dir: CheckpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a trial: configuration, curve, attempts, worker, files, and why it ended."""
    from hpo.experiment.trial_details import kept_files, trial_details
    from hpo.launchers.progress import format_seconds
    from hpo.settings import Settings

    settings = Settings.given(storage=storage, home=home, checkpoint_dir=checkpoint_dir)
    loaded = load_named(settings, experiment)
    found = trial_details(loaded, trial)
    found["folder"] = kept_files(loaded, found, settings)
    if as_json:
        print_json(found)
        return
    value = "" if found["value"] is None else f", {found['metric']} {found['value']:.6g}"
    show(f"trial {found['trial']} of {found['experiment']}: {found['state']}{value}")
    took = "" if found["seconds"] is None else f" in {format_seconds(found['seconds'])}"
    of_seeds = ", ".join("not finite" if value is None else f"{value:.6g}" for value in found["seed_values"])
    spread = "" if found["std"] is None else f" (standard deviation {found['std']:.3g})"
    lines = {
        "reason": found["reason"],
        "epochs": f"{found['epochs']}{_of_seeds(found)}{took}",
        "seed": found["seed"] if len(found["seeds"]) < 2 else ", ".join(map(str, found["seeds"])),
        "over seeds": f"{of_seeds}{spread}" if of_seeds else None,
        "drawn by": found["drawn_by"],
        "worker": found["worker"],
        "trained on": ", ".join(f"{k} {v}" for k, v in found["trained_on"].items() if v is not None) or None,
        "log of the worker": found["log"],
    }
    for name, text in lines.items():
        if text is not None:
            show(f"  {name + ':':<18} {printable(text)}")
    for title, values in (("hyperparameters", found["params"]), ("metrics", found["metrics"])):
        if values:
            show(f"{title}:")
            for name, value in values.items():
                shown = f"{value:.6g}" if isinstance(value, float) else printable(value)
                show(f"  {name:<18} {shown}")
    if found["curve"]:
        show(f"{found['metric']} by epoch:")
        show("  " + ", ".join(f"{step}: {value:.5g}" for step, value in _thinned(list(found["curve"].items()))))
    if len(found["attempts"]) > 1:
        show("attempts:")
        for attempt in found["attempts"]:
            reason = f": {printable(attempt['reason'])}" if attempt["reason"] else ""
            show(
                f"  {attempt['attempt']} (trial {attempt['trial']}), {attempt['epochs']} epochs, "
                f"{attempt['state']}{reason}"
            )
    for artifact in found["artifacts"]:
        show(f"file: {printable(artifact['name'])}")
    if (folder := found["folder"])["where"] is not None:
        show(f"folder: {printable(folder['where'])}")
        for name, size in folder["files"].items():
            show(f"  {printable(name)}, {size:,} bytes")
    elif folder["problem"]:
        show(f"folder: {printable(folder['problem'])}")
    show(f"log:  {command_for(settings, 'logs', experiment, found['trial'])}")


def _of_seeds(found: dict[str, Any]) -> str:
    num_seeds = len(found["seeds"])
    return f", {found['epochs'] // num_seeds} of each of {num_seeds} seeds" if num_seeds > 1 else ""


def printable(text: Any) -> str:
    """A text of the database for a terminal, which must not obey what it holds; on one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _thinned(points: list[Any], most: int = 12) -> list[Any]:
    """The first and the last and some between."""
    if len(points) <= most:
        return points
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


def workers(
    experiment: Annotated[str, typer.Argument(help="The experiment.")],
    storage: StorageOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the workers of an experiment: where they are, what they train and what they use."""
    from hpo.database.workers import read_workers
    from hpo.launchers.progress import format_seconds
    from hpo.settings import Settings

    settings = Settings.given(storage=storage, home=home)
    found = load_named(settings, experiment)
    with found.storage.engine.connect() as connection:
        rows = read_workers(connection, found.study_ids)
    names = {study.study_id: f"{study.sampler.label}/{study.repeat}" for study in found.studies}
    if as_json:
        print_json({"workers": [_as_dict(row, names) for row in rows]})
        return
    alive = [row for row in rows if row.alive]
    show(
        f"{len(alive)} of {experiment}'s workers {'is' if len(alive) == 1 else 'are'} alive"
        if rows
        else f"no worker of {experiment} has reported itself"
    )
    for row in rows:
        report = row.report
        what = f"{row.state}, {len(row.trials)} of {report.get('slots') or 1} slots" if row.alive else row.state
        show(
            f"{printable(report.get('host'))}, process {report.get('pid')}, {printable(report.get('device') or '?')}: "
            f"{printable(what)}"
        )
        use = [f"CPU {report['cpu_percent']} %"] if report.get("cpu_percent") is not None else []
        use += [f"memory {report['memory_mb']} MB"] if report.get("memory_mb") else []
        if report.get("gpu_percent") is not None:
            use.append(
                f"GPU {report['gpu_percent']} %, {report['gpu_memory_mb']} of {report['gpu_memory_total_mb']} MB"
            )
        if row.alive and use:
            show(f"  {', '.join(use)}; seen {format_seconds(row.silent_seconds)} ago")
        for trial in row.trials[:20]:
            show(
                f"  {names[trial.study_id]}, trial {trial.number}: epoch {trial.epoch}, {format_seconds(trial.seconds)}"
            )
        if len(row.trials) > 20:
            show(f"  and {len(row.trials) - 20} more trials")


def _as_dict(row: Any, names: dict[int, str]) -> dict[str, Any]:
    return {
        "worker": row.worker,
        "alive": row.alive,
        "state": row.state,
        "started": row.started,
        "seen": row.seen,
        **row.report,
        "trials": [
            {"study": names[t.study_id], "trial": t.number, "epoch": t.epoch, "seconds": round(t.seconds, 1)}
            for t in row.trials
        ],
    }
