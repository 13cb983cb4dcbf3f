"""Searches with thousands of finished trials, written in bulk: what a study looks like after a week."""

from collections.abc import Sequence

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "beta": FloatDistribution(0.8, 0.99),
    "width_1": IntDistribution(256, 1024),
    "width_2": IntDistribution(64, 256),
    "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
    "batch_size": CategoricalDistribution((32, 64, 128, 256)),
    "scheduler": CategoricalDistribution(("constant", "step", "cosine")),
}
# Internal values, drawn by the database.
DRAWS = {
    "lr": "power(10, -3 * random())",
    "beta": "0.8 + 0.19 * random()",
    "width_1": "floor(256 + 769 * random())",
    "width_2": "floor(64 + 193 * random())",
    "weight_decay": "power(10, -6 + 4 * random())",
    "batch_size": "floor(4 * random())",
    "scheduler": "floor(3 * random())",
}
RUNGS: Sequence[int] = (1, 3)


def fill(connection: sa.Connection, study_id: int, num_trials: int, epochs: int = 8, *, ours: bool) -> None:
    """Adds finished trials: 7 parameters, a report an epoch, the rungs that ASHA leaves; ``ours``: our record too.

    Their values are below what the sleeping trainer yields, so that no pruner ends a new trial early.
    """

    def run(statement: str, **parameters: object) -> None:
        connection.execute(sa.text(statement), {"s": study_id, **parameters})

    run("SELECT setseed(0.5)")
    run(
        "INSERT INTO trials (study_id, number, state, datetime_start, datetime_complete) "
        "SELECT :s, i, 'COMPLETE', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC' "
        "FROM generate_series(0, :n - 1) AS i",
        n=num_trials,
    )
    run(
        "CREATE TEMPORARY TABLE filled ON COMMIT DROP AS "
        "SELECT trial_id, number, 0.01 * random() AS score FROM trials WHERE study_id = :s"
    )
    run(
        "INSERT INTO trial_values (trial_id, objective, value, value_type) "
        "SELECT trial_id, 0, score, 'FINITE' FROM filled"
    )
    for name, distribution in DISTRIBUTIONS.items():
        run(
            "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
            f"SELECT trial_id, :name, {DRAWS[name]}, :json FROM filled",
            name=name,
            json=distribution_to_json(distribution),
        )
    run(
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type) "
        "SELECT trial_id, step, score * step / :e, 'FINITE' FROM filled, generate_series(1, :e) AS step",
        e=epochs,
    )
    for rung, step in enumerate(RUNGS):
        run(
            "INSERT INTO trial_system_attributes (trial_id, key, value_json) "
            "SELECT trial_id, :key, (score * :step / :e)::text FROM filled",
            key=f"completed_rung_{rung}",
            step=step,
            e=epochs,
        )
    if ours:
        run(
            "INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt, worker) "
            "SELECT trial_id, :s, number, 0, 'filled:1' FROM filled"
        )
        run(
            "UPDATE hpo_studies SET next_lineage = :n, epochs_spent = :n * :e WHERE study_id = :s",
            n=num_trials,
            e=epochs,
        )
        for key, value in {
            "lineage": "number::text",
            "attempt": "'0'",
            "worker": "'\"filled:1\"'",
            "seed": "number::text",
            "start_epoch": "'0'",
            "epochs": ":e ::text",
            "seconds": "'1.5'",
            "config": "json_build_object('lr', score, 'beta', 0.9, 'width_1', 300, 'width_2', 80, 'epochs', 8)::text",
            "metrics": "json_build_object('value', score)::text",
            "trained_on": '\'{"device": "cpu", "threads": 1}\'',
        }.items():
            run(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                f"SELECT trial_id, :key, {value} FROM filled",
                key=key,
                **({"e": epochs} if ":e" in value else {}),
            )
