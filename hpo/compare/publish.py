"""Sends the comparison into Optuna's own pages: figures with fixed ids and a note on each study of the experiment.

The dashboard reads a study's attributes at every poll, so figures are few and small. What has not changed is not
written again, and a second publication replaces the first. A note that a person has written or changed stays as it is:
only a note whose digest we have recorded is replaced.

Imports inside functions keep the start quick: what they bring is not needed by every command or worker.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import optuna

from hpo.compare import figures, tables
from hpo.compare.comparison import Comparison, compare_studies
from hpo.compare.load import Loader
from hpo.compare.records import AXES
from hpo.database import attributes
from hpo.database.storage import Storage
from hpo.search.optuna_internals import dashboard_figures, dashboard_module, storage_of, study_id_of

LARGEST_FIGURE = 50_000  # bytes
IDS = {
    "curve_trials_median_value": "hpo-curves-trials",
    "curve_epochs_median_value": "hpo-curves-epochs",
    "final": "hpo-final",
}
TITLES = {
    "curve_trials_median_value": f"Samplers: best so far by {AXES['trials']}",
    "curve_epochs_median_value": f"Samplers: best so far by {AXES['epochs']}",
    "final": "Samplers: final value of each repeat",
}
MOST_POINTS = 60


def publish(storage: Storage, experiment: str | Comparison) -> list[str]:
    """Publishes the comparison of an experiment on each of its studies. May be repeated.

    Returns the studies whose note a person has written or changed; that note is left as it is.

    Raises:
        ExperimentError: for an unknown experiment.
        StorageError: if the database does not answer.
    """
    loader = Loader(storage)
    comparison = compare_studies(loader.load(experiment)) if isinstance(experiment, str) else experiment
    drawn = {key: figure_json(comparison, key) for key in IDS}
    skipped = []
    for name, study_id in comparison.studies.items():
        study = optuna.load_study(study_name=name, storage=loader.storage, pruner=optuna.pruners.NopPruner())
        stored = dashboard_figures(loader.storage.get_study_system_attrs(study_id))
        for key, graph_id in IDS.items():
            figure = drawn[key]
            if stored.get(graph_id) != figure.to_json():
                dashboard_module("_custom_plot_data").save_plotly_graph_object(study, figure, graph_object_id=graph_id)
        if not _write_note(study, note(comparison, name)):
            skipped.append(name)
    return skipped


def _write_note(study: optuna.Study, text: str) -> bool:
    """Writes our note if there is none, or one of ours; returns whether the study has our note now."""
    notes = dashboard_module("_note")
    present = notes.get_note(study)
    if present == text:
        return True
    storage, study_id = storage_of(study), study_id_of(study)
    digests = storage.get_study_system_attrs(study_id).get(attributes.NOTE_DIGESTS) or []
    if present and _digest(present) not in digests:
        return False
    # The digest is recorded before the note is written, and the last one stays: a process that dies in between leaves
    # a note whose digest is recorded, whichever of the two it is.
    storage.set_study_system_attr(study_id, attributes.NOTE_DIGESTS, [*digests[-1:], _digest(text)])
    notes.save_note(study, text)
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def figure_json(comparison: Comparison, key: str) -> Any:
    """The figure for Optuna's page: with a title, and with fewer points if it would be too large."""
    import plotly.graph_objects  # type: ignore[import-untyped]

    found = figures.all_figures(comparison)[key]
    while len(json.dumps(found)) > LARGEST_FIGURE * 0.9:
        thinned = [_thinned(trace) for trace in found["data"]]
        if thinned == found["data"]:
            break
        found["data"] = thinned
    found["layout"] |= {"title": {"text": TITLES[key]}, "template": None}
    found["layout"]["margin"] = {"l": 60, "r": 20, "t": 90, "b": 50}
    return plotly.graph_objects.Figure(found)


def _thinned(trace: dict[str, object]) -> dict[str, object]:
    changed = dict(trace)
    for name in ("x", "y"):
        values = trace.get(name)
        if isinstance(values, Sequence) and len(values) > MOST_POINTS:
            changed[name] = [*values[:-1:2], values[-1]]
    return changed


def note(comparison: Comparison, study_name: str) -> str:
    """Markdown for one study: the verdicts, the tables, and links to the other pages."""
    c = comparison
    lines = [f"## {_text(c.experiment)}: samplers compared", ""]
    lines += [f"*{_text(sentence)}*" for sentence in c.notes]
    lines += [f"- {_text(pair.sentence)}" for pair in c.pairs]
    lines += ["", *_markdown(tables.samplers(c)), "", *_markdown(tables.cost(c)), ""]
    query = quote(c.experiment, safe="")
    ids = ",".join(str(study_id) for study_id in c.studies.values())
    lines += [
        f"[The whole comparison](/hpo/experiment?name={query}) · "
        f"[all studies overlaid](/dashboard/compare-studies?ids={ids})",
        "",
        f"This study: {_text(study_name)}. Written by `hpo compare --publish`.",
    ]
    return "\n".join(lines)


def _markdown(table: tables.Table) -> list[str]:
    rows = [[_text(column) for column in table.columns], ["---", *["---:"] * (len(table.columns) - 1)]]
    rows += [[_text(tables.text(cell)) for cell in row] for row in table.rows]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _text(text: str) -> str:
    """Text that markdown and HTML leave as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)
