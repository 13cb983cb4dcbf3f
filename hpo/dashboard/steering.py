"""Steering from the browser: ``/hpo/steering`` has the state and the buttons, ``/hpo/steer`` asks, and then acts.

Each question carries the last event that the person has seen: if somebody else has steered meanwhile, nothing is
changed and the question is asked again with what they did. Nothing needs a script.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import bottle  # type: ignore[import-untyped]

from hpo.dashboard.guard import PREFIX, Access
from hpo.dashboard.opened import answering, link, named_experiment, page
from hpo.database import workers
from hpo.database.storage import Storage
from hpo.errors import ExperimentError, HPOError, StorageError, UsageError
from hpo.experiment import enqueueing, extension, steering
from hpo.experiment.deletion import contents, delete_experiment
from hpo.experiment.experiment import Experiment
from hpo.settings import Settings
from hpo.studyfile.budget import Budget


@dataclass(frozen=True)
class Action:
    """A button: what it says, and what its question says will happen."""

    title: str
    what: str
    dangerous: bool = False


ACTIONS = {
    "pause": Action(
        "Pause", "Its workers give their trials back, with their checkpoints, and wait without a device for resume."
    ),
    "resume": Action("Resume", "Workers that wait go on. Workers that a stop has ended have to be launched again."),
    "stop": Action(
        "Stop", "Its workers give their trials back, with their checkpoints, and end. The next launch goes on."
    ),
    "retry": Action("Retry failed trials", "Failed trials are queued again and go on from their last checkpoints."),
    "prune": Action("Prune trial", "The trial ends with the value that it has, and counts as pruned."),
    "extend": Action("Extend budget", "Each search gets the larger budget; a budget only grows."),
    "enqueue": Action("Enqueue configuration", "It is a trial of the budget; what is left out is drawn."),
    "delete": Action(
        "Delete", "The studies, the trials, the checkpoints and the artifacts are removed for good.", dangerous=True
    ),
}
HALTING = ("pause", "stop")


class SteeringPages:
    """The views of steering; ``routes`` lists them."""

    def __init__(self, storage: Storage, access: Access, settings: Settings) -> None:
        self._storage, self._access, self._settings = storage, access, settings
        self.routes: tuple[tuple[str, str, Callable[..., Any]], ...] = (
            ("/steering", "GET", answering(self.steering)),
            ("/steer", "GET", answering(self.ask)),
            ("/steer", "POST", answering(self.act)),
        )

    def steering(self) -> str:
        """The state, the buttons, the forms and what persons have done."""
        experiment = named_experiment(self._storage)
        with self._storage.engine.connect() as connection:
            alive = workers.num_alive(connection, experiment.study_ids)
        budget = Budget(**experiment.content["budget"]).as_dict()
        return page(
            "steering.html",
            self._access,
            experiment,
            order=steering.order_of(experiment),
            events=steering.events_of(experiment),
            alive=alive,
            actions=ACTIONS,
            budget=budget,
            space=enqueueing.space_of(experiment).parameters,
            samplers=[
                label
                for label, study in {study.sampler.label: study for study in experiment.studies}.items()
                if study.sampler.entry.cells is None
            ],
            retry=shlex.join(["hpo", "retry", experiment.name]),
        )

    def ask(self, problem: str = "", values: Mapping[str, str] | None = None) -> str:
        """The question before anything is changed."""
        experiment = named_experiment(self._storage)
        given = dict(values or _values(bottle.request.query))
        action = given["action"]
        if action not in ACTIONS:
            raise UsageError(f"There is no action {action!r}: {', '.join(ACTIONS)}.")
        refused = bool(problem)
        try:
            detail = self._check(experiment, given)
        except UsageError as error:
            detail, problem, refused = "", problem or str(error), True
        return page(
            "steer.html",
            self._access,
            experiment,
            action=action,
            shown=ACTIONS[action],
            detail=detail,
            problem=problem,
            is_refused=refused and action in ("extend", "enqueue"),
            given={key: value for key, value in given.items() if key != "expected"},
            order=steering.order_of(experiment),
            halting=HALTING,
            back=link("trial", name=experiment.name, trial=given["trial"])
            if given.get("trial")
            else link("steering", name=experiment.name),
        )

    def act(self) -> Any:
        """Does what was asked for and shows the page with what came of it."""
        given = _values(bottle.request.forms)
        experiment = named_experiment(self._storage)
        try:
            self._do(experiment, given)
        except StorageError:
            raise
        except HPOError as error:
            bottle.response.status = 400 if isinstance(error, UsageError) else 409
            return self.ask(str(error), given)
        if given["action"] == "delete":
            return bottle.redirect(f"{PREFIX}/", 303)
        return bottle.redirect(link("steering", name=experiment.name), 303)

    def _check(self, experiment: Experiment, given: Mapping[str, str]) -> str:
        """What the question is about; raises UsageError for what cannot be done."""
        if given["action"] == "extend":
            budget = extension.check_extension(experiment, _budget(given)).as_dict()
            return ", ".join(f"{unit}: {count:g}" for unit, count in budget.items())
        if given["action"] == "enqueue":
            values, studies = enqueueing.check(experiment, _configuration(given), sampler=given.get("sampler") or None)
            places = ", ".join(f"{study.sampler.label}/{study.repeat}" for study in studies)
            return f"{steering.shown_values(values)} in {places}"
        if given["action"] == "delete":
            found = contents(self._storage, experiment.name)
            return f"{len(found.study_ids)} studies and {found.num_trials} trials"
        return given.get("trial", "")

    def _do(self, experiment: Experiment, given: Mapping[str, str]) -> None:
        action = given["action"]
        expected = int(given["expected"]) if given.get("expected", "").isdecimal() else None
        who = f"{steering.person()} (dashboard, {bottle.request.remote_addr})"
        common: dict[str, Any] = {"who": who, "expected": expected}
        if action in HALTING:
            act = steering.stop if action == "stop" else steering.pause
            act(experiment, finish_running=given.get("finish_running") == "1", **common)
        elif action == "resume":
            steering.resume(experiment, **common)
        elif action == "retry":
            steering.retry(experiment, given.get("trial") or None, **common)
        elif action == "prune":
            steering.prune(experiment, given.get("trial", ""), **common)
        elif action == "extend":
            extension.extend(experiment, _budget(given), **common)
        elif action == "enqueue":
            enqueueing.enqueue(experiment, _configuration(given), sampler=given.get("sampler") or None, **common)
        elif action == "delete":
            if given.get("sure") != experiment.name:
                raise ExperimentError("Nothing was deleted: type the name of the experiment to delete it.")
            delete_experiment(contents(self._storage, experiment.name), self._settings)
        else:
            raise UsageError(f"There is no action {action!r}.")


def _values(form: Any) -> dict[str, str]:
    """The fields of a form as text; ``action`` is always there."""
    found = {str(key): str(form.getunicode(key) or "").strip() for key in form}
    # Bottle gives the names of fields as Latin-1; a hyperparameter may have any name.
    decoded = {key.encode("latin-1", "replace").decode("utf-8", "replace"): value for key, value in found.items()}
    return {"action": "", **decoded}


def _budget(given: Mapping[str, str]) -> dict[str, str]:
    return {unit: given[unit] for unit in Budget.model_fields if given.get(unit)}


def _configuration(given: Mapping[str, str]) -> dict[str, Any]:
    texts = [
        f"{key.removeprefix('param:')}={value}" for key, value in given.items() if key.startswith("param:") and value
    ]
    return enqueueing.parse_values(texts)
