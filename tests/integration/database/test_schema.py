"""A database that an earlier version made gets the columns that it lacks when it is opened, once and by anybody."""

from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from hpo.database import claims, retries
from hpo.database.storage import Storage
from tests.integration.trials_support import claim_one, finish, new_study

COLUMNS = ("progress", "draw", "infeasible", "apart")


def columns(storage: Storage) -> set[str]:
    return {column["name"] for column in sa.inspect(storage.engine).get_columns("hpo_trials")}


def test_columns_are_added_to_the_tables_of_an_earlier_version(storage: Storage) -> None:
    study_id = new_study(storage, 2)
    failed = claim_one(storage, study_id)
    with storage.engine.begin() as connection:
        assert retries.retry_or_fail(connection, failed.trial_id, "no luck", 3)
        for name in COLUMNS:
            connection.execute(sa.text(f"ALTER TABLE hpo_trials DROP COLUMN {name}"))
        connection.execute(sa.text("ALTER TABLE hpo_studies DROP COLUMN num_seconds, DROP COLUMN seen_at"))
    assert columns(storage).isdisjoint(COLUMNS)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: Storage(storage.secret_address), range(4)))
    assert columns(storage).issuperset(COLUMNS)
    # What was queued goes on.
    again = claim_one(opened[0], study_id)
    assert (again.lineage, again.attempt, again.draw, again.apart) == (0, 1, 0, False)
    assert finish(opened[0], again.trial_id)
    assert finish(opened[0], claim_one(opened[0], study_id).trial_id)
    assert claims.claim(opened[0].engine, [study_id], "here:1") == ([], True)
    for each in opened:
        each.engine.dispose()
