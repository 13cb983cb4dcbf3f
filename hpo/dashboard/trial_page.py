"""The page of one trial: ``/hpo/trial?name=EXPERIMENT&trial=SAMPLER/REPEAT/NUMBER``.

Its curve is drawn by the server as SVG, so the page needs no script.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import bottle  # type: ignore[import-untyped]

from hpo.dashboard.guard import Access
from hpo.dashboard.opened import answering, named_experiment, page
from hpo.database.storage import Storage
from hpo.errors import ExperimentError
from hpo.experiment.trial_details import kept_files, kept_folder, trial_details
from hpo.experiment.trial_log import trial_log
from hpo.settings import Settings
from hpo.trainers.trial_log import as_text

LOG_CHARACTERS = 20_000
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 240, 84, 28


class TrialPage:
    """The view of a trial; ``routes`` lists it and its log as a text."""

    def __init__(self, storage: Storage, access: Access, settings: Settings) -> None:
        self._storage, self._access, self._settings = storage, access, settings
        self.routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("/trial", "GET", answering(self.trial)),
            ("/trial.log", "GET", answering(self.log)),
            ("/trial.file", "GET", answering(self.file)),
        )

    def trial(self) -> str:
        experiment = named_experiment(self._storage)
        found = trial_details(experiment, bottle.request.query.trial)
        log, problem = "", ""
        try:
            log = as_text(trial_log(experiment, found["trial"], self._settings))
        except ExperimentError as error:
            problem = str(error)
        return page(
            "trial.html",
            self._access,
            experiment,
            trial=found,
            folder=kept_files(experiment, found, self._settings),
            curve=curve(found["curve"]),
            log=log[-LOG_CHARACTERS:],
            is_cut=len(log) > LOG_CHARACTERS,
            log_problem=problem,
        )

    def log(self) -> bytes:
        experiment = named_experiment(self._storage)
        bottle.response.content_type = "text/plain; charset=utf-8"
        return trial_log(experiment, bottle.request.query.trial, self._settings)

    def file(self) -> BinaryIO:
        """A file of the trial's folder, to be downloaded: a browser must not show what a trainer has written."""
        experiment = named_experiment(self._storage)
        found = trial_details(experiment, bottle.request.query.trial)
        name = bottle.request.query.file
        try:
            kept = kept_folder(experiment, found, self._settings)
            if kept is None:
                raise KeyError(name)
            opened = kept.open(name)
        except KeyError:
            raise ExperimentError(f"trial {found['trial']} has no file {name!r} in its folder") from None
        except OSError as error:
            raise ExperimentError(f"the folder of trial {found['trial']} cannot be read: {error}") from error
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name.rpartition("/")[2])
        bottle.response.content_type = "application/octet-stream"
        bottle.response.set_header("Content-Disposition", f'attachment; filename="{plain}"')
        return opened


def curve(values: Mapping[str, float]) -> dict[str, Any] | None:
    """The drawing of the values by epoch: points in pixels and the labels of the axes; None if there are none."""
    points = [(int(step), value) for step, value in values.items() if math.isfinite(value)]
    if not points:
        return None
    steps, heights = [step for step, _ in points], [value for _, value in points]
    low, high = min(heights), max(heights)
    if low == high:
        low, high = low - (abs(low) or 1) * 0.05, high + (abs(high) or 1) * 0.05
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 12) * ((step - first) / (last - first) if last > first else 0.5), 1)

    def y(value: float) -> float:
        return round(12 + (HEIGHT - BOTTOM - 24) * (1 - (value - low) / (high - low)), 1)

    ticks = [low, (low + high) / 2, high]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "points": [(x(step), y(value), step, value) for step, value in points],
        "line": " ".join(f"{x(step)},{y(value)}" for step, value in points),
        "ticks": [(y(tick), f"{tick:.4g}") for tick in ticks],
        "steps": [(x(step), step) for step in sorted({first, (first + last) // 2, last})],
        "bottom": HEIGHT - BOTTOM + 16,
    }
