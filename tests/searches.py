"""Experiments for tests, written into a storage in bulk: searches of a known surface, as workers would leave them."""

import datetime
import itertools
import json
import math
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages._rdb import models

from hpo.database.study_budget import set_budget

SPACE = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "beta": FloatDistribution(0.8, 0.99),
    "width": CategoricalDistribution((128, 256, 512)),
}
SKILL = {"grid": 0.0, "random": 0.0, "tpe": 0.8}
START = datetime.datetime(2026, 3, 1, 12)


def accuracy(lr, beta, width):
    """Best at lr 0.05, beta 0.9, width 512: 0.95 there."""
    return (
        0.95 - 0.02 * (math.log10(lr / 0.05)) ** 2 - 2.0 * (beta - 0.9) ** 2 - {128: 0.01, 256: 0.004, 512: 0.0}[width]
    )


def study_file(name, samplers, repeats, trials, **more):
    return {
        "name": name,
        "trainer": "classifier",
        "metric": "val_accuracy",
        "samplers": [{"name": sampler, "label": sampler} for sampler in samplers],
        "direction": "maximize",
        "repeats": repeats,
        "budget": {"trials": trials},
        "space": {
            "lr": {"low": 1e-4, "high": 1.0, "log": True},
            "beta": {"low": 0.8, "high": 0.99},
            "width": {"choices": [128, 256, 512]},
        },
        **more,
    }


def fill(
    storage,
    name: str,
    samplers: Sequence[str] = ("grid", "random", "tpe"),
    repeats: int = 10,
    trials: int = 20,
    *,
    finished: int | None = None,
    epochs: int = 5,
    seed: int = 0,
    **file,
) -> list[int]:
    """Writes the experiment and returns its study ids. ``finished``: trials done of each study; one more then runs."""
    content = study_file(name, samplers, repeats, trials, **file)
    ids = []
    with storage.engine.begin() as connection:
        for sampler, repeat in itertools.product(samplers, range(repeats)):
            study_id = _insert(connection, models.StudyModel, [{"study_name": f"{name}/{sampler}/{repeat}"}])[0]
            ids.append(study_id)
            _insert(
                connection,
                models.StudyDirectionModel,
                [{"study_id": study_id, "direction": "MAXIMIZE", "objective": 0}],
            )
            attrs = {
                "hpo:experiment": name,
                "hpo:sampler": sampler,
                "hpo:repeat": repeat,
                "hpo:study_file": content,
                "hpo:key": f"key{study_id}",
            }
            _insert(connection, models.StudyUserAttributeModel, _attributes("study_id", study_id, attrs))
            set_budget(connection, study_id, trials, None, epochs)
            done = trials if finished is None else finished
            _search(connection, study_id, sampler, repeat, done, epochs, seed, running=finished is not None)
    return ids


def _search(connection, study_id, sampler, repeat, trials, epochs, seed, running):
    draws = np.random.default_rng([seed, repeat, len(sampler)])
    rows, values, params, attrs, reports = [], [], [], [], []
    best = None
    clock = START
    for number in range(trials):
        config = _draw(draws, sampler, number, best)
        value = accuracy(**config) + float(draws.normal(0, 0.002))
        pruned = number >= 4 and value < 0.90
        ran = 1 if pruned else epochs
        seconds = ran * (0.5 + config["width"] / 512)
        end = clock + datetime.timedelta(seconds=seconds)
        rows.append(
            {
                "number": number,
                "study_id": study_id,
                "state": "PRUNED" if pruned else "COMPLETE",
                "datetime_start": clock,
                "datetime_complete": end,
            }
        )
        clock = end
        values.append(value)
        params.append(config)
        attrs.append(
            {
                "lineage": number,
                "attempt": 0,
                "config": {**config, "epochs": epochs},
                "seed": 1000 * repeat + number,
                "start_epoch": 0,
                "epochs": ran,
                "seconds": seconds,
                "metrics": {"val_accuracy": value},
            }
        )
        reports.append([value - 0.1 / (epoch + 1) for epoch in range(ran - 1)] + [value])
        if not pruned and (best is None or value > best[0]):
            best = value, config
    if running:
        rows.append(
            {
                "number": trials,
                "study_id": study_id,
                "state": "RUNNING",
                "datetime_start": clock,
                "datetime_complete": None,
            }
        )
        attrs.append({"lineage": trials, "attempt": 0})
    ids = _insert(connection, models.TrialModel, rows)
    # As the workers' claims and ends leave it.
    ours = [{"t": i, "s": study_id, "l": content["lineage"]} for i, content in zip(ids, attrs, strict=True)]
    insert = "INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt) VALUES (:t, :s, :l, 0)"
    if ours:
        connection.execute(sa.text(insert), ours)
    connection.execute(
        sa.text("UPDATE hpo_studies SET next_lineage = :n, epochs_spent = :e WHERE study_id = :s"),
        {"n": len(ids), "e": sum(content.get("epochs", 0) for content in attrs), "s": study_id},
    )
    scores = [
        {"trial_id": i, "objective": 0, "value": value, "value_type": "FINITE"}
        for i, value in zip(ids, values, strict=False)
    ]
    _insert(connection, models.TrialValueModel, scores)
    chosen = [
        {
            "trial_id": i,
            "param_name": name,
            "param_value": SPACE[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(SPACE[name]),
        }
        for i, config in zip(ids, params, strict=False)
        for name, value in config.items()
    ]
    _insert(connection, models.TrialParamModel, chosen)
    told = [row for i, content in zip(ids, attrs, strict=True) for row in _attributes("trial_id", i, content)]
    _insert(connection, models.TrialUserAttributeModel, told)
    steps = [
        {"trial_id": i, "step": step, "intermediate_value": value, "intermediate_value_type": "FINITE"}
        for i, curve in zip(ids, reports, strict=False)
        for step, value in enumerate(curve, 1)
    ]
    _insert(connection, models.TrialIntermediateValueModel, steps)


def _draw(draws, sampler, number, best):
    if sampler == "grid":
        lrs, betas, widths = [0.001, 0.01, 0.3], [0.82, 0.88, 0.94], [128, 256, 512]
        lr, beta, width = list(itertools.product(lrs, betas, widths))[number % 27]
        return {"lr": lr, "beta": beta, "width": width}
    lr, beta = 10 ** float(draws.uniform(-4, 0)), float(draws.uniform(0.8, 0.99))
    width = int(draws.choice([128, 256, 512]))
    if best is not None and number >= 5 and draws.random() < SKILL.get(sampler, 0.0):
        lr = min(1.0, max(1e-4, best[1]["lr"] * 10 ** float(draws.normal(0, 0.25))))
        beta = min(0.99, max(0.8, best[1]["beta"] + float(draws.normal(0, 0.01))))
        width = best[1]["width"]
    return {"lr": lr, "beta": beta, "width": width}


def _attributes(column, owner, content):
    return [{column: owner, "key": key, "value_json": json.dumps(value)} for key, value in content.items()]


def _insert(connection, model, rows):
    """Inserts the rows; returns their primary keys in order."""
    if not rows:
        return []
    table = model.__table__
    key = next(iter(table.primary_key.columns))
    return list(connection.execute(sa.insert(table).returning(key, sort_by_parameter_order=True), rows).scalars())
