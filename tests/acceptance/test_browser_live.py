"""Pages in a real Chromium while trials end, while the database is away, with very little and with very much."""

import time

import optuna
import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from hpo.cli.dashboard import exporter
from hpo.compare.output import write_html
from hpo.compare.report import compare
from hpo.dashboard.server import Server, make_access, make_app
from hpo.settings import Settings
from tests.searches import fill

from .browsing import (  # noqa: F401
    chromium_fixture,
    drawn,
    needs_chromium,
    no_sideways_scroll,
    until,
    visit_fixture,
    wait_for_figures,
)

pytestmark = needs_chromium


@pytest.fixture
def serve(storage, tmp_path):
    server = Server(
        make_app(storage, tmp_path / "artifacts", make_access("127.0.0.1"), exporter(storage, Settings(home=tmp_path))),
        "127.0.0.1",
        0,
    )
    thread = server.start()
    yield server.url
    server.close()
    thread.join(5)


def test_the_page_lives_while_the_experiment_runs(storage, serve, visit):
    fill(storage, "live", samplers=("random", "tpe"), repeats=7, trials=10, finished=6)
    page = visit()
    page.goto(f"{serve}hpo/experiment?name=live")
    wait_for_figures(page)
    expect(page.locator(".alert")).to_contain_text("not finished")
    page.locator("summary", has_text="As a table").first.click()
    page.evaluate("window.loadedOnce = true")
    study = optuna.load_study(study_name="live/tpe/0", storage=storage)
    study.add_trial(optuna.trial.create_trial(value=0.98761, user_attrs={"lineage": 8, "attempt": 0, "epochs": 5}))
    with storage.engine.begin() as connection:  # one that a worker has trained, not one that a person added
        connection.execute(
            sa.text(
                "INSERT INTO hpo_trials (trial_id, study_id, lineage, attempt) "
                "SELECT max(trial_id), study_id, 8, 0 FROM trials WHERE study_id = :s GROUP BY study_id"
            ),
            {"s": study._study_id},
        )
    expect(page.locator(".config", has_text="tpe").locator(".value")).to_have_text("0.9876")
    assert page.evaluate("window.loadedOnce") is True  # no reload
    assert page.locator("details[open]").count() == 1  # what was open stays open
    points = "document.querySelector('[data-figure=final]').data[2].y"
    until(page, f"{points}.includes(0.98761)")


def test_the_page_outlives_the_database(storage, address, serve, visit):
    fill(storage, "live", samplers=("random", "tpe"), repeats=2, trials=10, finished=6)
    page = visit(allowed=("status of 503",))
    page.goto(f"{serve}hpo/experiment?name=live")
    wait_for_figures(page)
    expect(page.locator(".offline")).to_be_hidden()
    name = sa.engine.make_url(address).database
    engine = sa.create_engine(sa.engine.make_url(address).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"), {"n": name}
        )
        expect(page.locator(".offline")).to_contain_text("the database does not answer")
        expect(page.locator(".offline")).to_contain_text("trying again")
        assert drawn(page)["final"]["shapes"] >= 4  # the last numbers stay
        connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    engine.dispose()
    expect(page.locator(".offline")).to_be_hidden()


def test_pages_of_experiments_that_have_little(storage, serve, visit):
    fill(storage, "empty", repeats=2, trials=3, finished=0)
    fill(storage, "once", repeats=1, trials=6)
    page = visit(size="phone", allowed=("status of 404",))
    page.goto(f"{serve}hpo/experiment?name=empty")
    wait_for_figures(page)
    expect(page.locator("[data-figure=final]")).to_contain_text("No finished trial yet")
    page.goto(f"{serve}hpo/experiment?name=once")
    wait_for_figures(page)
    assert drawn(page)["curve_trials_median"]["shapes"] >= 3
    expect(page.locator(".alert")).to_contain_text("One repeat only")
    no_sideways_scroll(page, 400)
    page.goto(f"{serve}hpo/experiment?name=oncee")
    expect(page.locator("main")).to_contain_text("did you mean 'once'?")


def test_a_page_of_a_large_experiment_comes_at_once(storage, serve, visit):
    fill(storage, "large", repeats=10, trials=334)
    page = visit()
    page.goto(f"{serve}hpo/experiment?name=large")
    wait_for_figures(page)
    expect(page.locator(".head")).to_contain_text("10,020 finished trials")
    assert drawn(page)["curve_trials_median"]["shapes"] >= 6
    started = time.perf_counter()
    page.reload()
    wait_for_figures(page)
    print(f"page of 10,020 trials: {time.perf_counter() - started:.2f} s")


def test_the_written_page_stands_alone(storage, visit, tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        fill(storage, name, repeats=7, trials=8, seed=seed, target=0.9)
    write_html(compare(storage, ["one", "two"]), tmp_path / "page.html")
    page = visit(size="phone", theme="dark")
    page.goto(f"file://{tmp_path}/page.html")
    wait_for_figures(page)
    figures = drawn(page)
    assert {"ranks", "0-curve_trials_median", "1-final", "0-pairs"} <= figures.keys()
    assert {key: found for key, found in figures.items() if not found["shapes"]} == {}
    page.locator(".card", has_text="Best so far").nth(1).get_by_role("button", name="epochs").click()
    expect(page.locator("[data-figure='1-curve_epochs_median']")).to_have_attribute(
        "data-drawn", "1-curve_epochs_median"
    )
    no_sideways_scroll(page, 400)
