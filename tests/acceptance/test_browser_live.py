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
    expect(page.locator(".facts")).to_contain_text("84 of 140")
    page.locator("summary", has_text="Every pair of samplers").click()
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
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".config[data-sampler=tpe] .value")).to_have_text("0.9876")
    assert page.evaluate("window.loadedOnce") is True  # no reload
    assert page.locator("details[open]").count() == 1  # what was open stays open
    points = "document.querySelector('[data-figure=final]').data[2].y"
    until(page, f"{points}.includes(0.98761)")


def test_polling_stops_when_nothing_changes_and_starts_again(storage, serve, visit):
    fill(storage, "done", samplers=("random",), repeats=1, trials=6)
    page = visit()
    polls = []
    page.on("request", lambda r: polls.append(r.url) if "/api/experiment?" in r.url else None)
    page.clock.install()
    page.goto(f"{serve}hpo/experiment?name=done")
    for _ in range(20):
        page.clock.run_for(5_000)
        page.wait_for_timeout(50)
    until(page, "document.body.dataset.polling === 'stopped'")
    asked = len(polls)
    assert 3 <= asked <= 5
    page.clock.run_for(600_000)
    page.wait_for_timeout(100)
    assert len(polls) == asked
    page.evaluate("dispatchEvent(new Event('focus'))")
    page.wait_for_timeout(300)
    assert len(polls) == asked + 1


def test_an_experiment_deleted_while_its_page_is_open(storage, serve, visit):
    fill(storage, "gone", samplers=("random",), repeats=1, trials=6, finished=3)
    page = visit(allowed=("status of 404",))
    page.goto(f"{serve}hpo/experiment?name=gone")
    wait_for_figures(page)
    optuna.delete_study(study_name="gone/random/0", storage=storage)
    page.wait_for_timeout(700)
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".offline")).to_contain_text("no longer in the database")
    assert drawn(page)["learning"]["shapes"] >= 1  # what was there can still be read


WEIRD = "a\"b<i>'&/ü漢 🎉 %2f"


def test_a_name_of_quotes_brackets_and_emoji(storage, serve, visit):
    fill(storage, WEIRD, samplers=("random", "tpe"), repeats=2, trials=6)
    page = visit()
    page.goto(f"{serve}hpo/")
    page.get_by_role("link", name=WEIRD).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(WEIRD)
    wait_for_figures(page)
    page.get_by_label("Figures of").select_option(f"{WEIRD}/tpe/1")
    wait_for_figures(page)
    assert page.locator("main i").count() == 0
    page.locator("summary", has_text="Studies in Optuna").click()
    page.get_by_role("link", name=f"{WEIRD}/tpe/0", exact=True).click()


def test_the_list_is_searched_sorted_and_hides_what_is_finished(storage, serve, visit):
    fill(storage, "alpha", samplers=("random",), repeats=1, trials=3)
    fill(storage, "beta", samplers=("tpe",), repeats=2, trials=9)
    fill(storage, "gamma", samplers=("grid",), repeats=1, trials=4, finished=2)
    page = visit()
    page.goto(f"{serve}hpo/")
    names = page.locator("#experiments tr:not([hidden]) th[scope=row]")

    def listed():
        return [name.strip() for name in names.all_inner_texts()]

    assert sorted(listed()) == ["alpha", "beta", "gamma"]
    page.get_by_role("button", name="experiment").click()
    assert listed() == ["alpha", "beta", "gamma"]
    page.get_by_role("button", name="experiment").click()
    assert listed() == ["gamma", "beta", "alpha"]
    page.get_by_role("button", name="repeats").click()
    assert listed()[0] == "beta"
    page.get_by_label("Search").fill("tpe")
    assert listed() == ["beta"]
    expect(page.locator("#found")).to_have_text("1 of 3")
    page.get_by_label("Search").fill("")
    page.get_by_label("hide finished").check()
    assert listed() == ["gamma"]
    page.reload()
    assert listed() == ["gamma"]  # the choice stays


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
        page.evaluate("dispatchEvent(new Event('online'))")
    engine.dispose()
    expect(page.locator(".offline")).to_be_hidden()


def test_pages_of_experiments_that_have_little(storage, serve, visit):
    fill(storage, "empty", repeats=2, trials=3, finished=0)
    fill(storage, "once", repeats=1, trials=6)
    page = visit(size="phone", allowed=("status of 404",))
    page.goto(f"{serve}hpo/experiment?name=empty")
    wait_for_figures(page)
    expect(page.locator("[data-figure=final]")).to_contain_text("No finished trial yet")
    expect(page.locator("[data-figure=learning]")).to_contain_text("No trial has reported a value of an epoch yet")
    page.goto(f"{serve}hpo/experiment?name=once")
    wait_for_figures(page)
    assert drawn(page)["curve_trials_median_value"]["shapes"] >= 3
    expect(page.locator(".alert")).to_contain_text("One repeat only")
    no_sideways_scroll(page, 400)
    page.goto(f"{serve}hpo/experiment?name=oncee")
    expect(page.locator("main")).to_contain_text("did you mean 'once'?")


def test_a_page_of_a_large_experiment_comes_at_once(storage, serve, visit):
    fill(storage, "large", repeats=10, trials=334)
    page = visit()
    page.goto(f"{serve}hpo/experiment?name=large")
    wait_for_figures(page)
    expect(page.locator(".head")).to_contain_text("10,020 of 10,020 trials")
    assert drawn(page)["curve_trials_median_value"]["shapes"] >= 6
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
    assert {"ranks", "0-curve_trials_median_value", "1-final", "0-pairs"} <= figures.keys()
    assert {key: found for key, found in figures.items() if not found["shapes"]} == {}
    page.locator(".card", has_text="Best so far").nth(1).get_by_role("button", name="epochs").click()
    expect(page.locator("[data-figure='1-curve_epochs_median_value']")).to_have_attribute(
        "data-drawn", "1-curve_epochs_median_value"
    )
    no_sideways_scroll(page, 400)
