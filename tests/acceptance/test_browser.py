"""Every page in a real Chromium: an experiment that real workers ran, served by ``hpo dashboard``."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from playwright.sync_api import expect, sync_playwright

from hpo.compare.report import Report, compare, write_html
from hpo.dashboard.command import exporter
from hpo.dashboard.server import Server, make_access, make_app
from hpo.settings import Settings

from ..searches import fill
from .conftest import REPOSITORY

CHROMIUM = os.environ.get("HPO_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium, or HPO_TEST_CHROMIUM")

STUDY = """
name = "sleepy 漢字 ü"
trainer = "sleeping"
metric = "value"
samplers = ["random", "tpe"]
repeats = 7
budget = { trials = 6 }
[fixed]
epochs = 2
epoch_seconds = 0.0
[space]
lr = { low = 1e-3, high = 1.0, log = true }
beta = { low = 0.8, high = 0.99 }
"""
NAME = tomllib.loads(STUDY)["name"]
PASSWORD = "right horse"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 400, "height": 800}}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HPO_")},
        "HPO_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "HPO_TRAINERS": "benchmarks.sleeping",
        "HPO_DASHBOARD_PASSWORD": PASSWORD,
    }


@pytest.fixture(scope="module")
def dashboard(environment, tmp_path_factory):
    """Runs the experiment, publishes its comparison, serves it; returns the server's address."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "study.toml").write_text(STUDY)
    hpo = [sys.executable, "-m", "hpo"]
    for command in (["launch", "study.toml", "--workers", "2"], ["compare", NAME, "--publish"]):
        done = subprocess.run(
            [*hpo, *command], env=environment, cwd=folder, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*hpo, "dashboard", "--port", "0"],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + (folder / "log").read_text()
        yield found[0]
        process.send_signal(signal.SIGINT)
        process.wait(20)
        process.stdout.close()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Opens a page of a given size and theme; after the test nothing may have gone wrong on it."""
    contexts, troubles = [], []

    def open_page(size="desktop", theme="light", allowed=(), **options):
        context = chromium.new_context(viewport=SIZES[size], color_scheme=theme, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()

        def trouble(text):
            if not any(part in text for part in allowed):
                troubles.append(text)

        page.on("console", lambda m: trouble(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: trouble(str(error)))
        page.on("request", lambda r: trouble(f"outside: {r.url}") if not is_local(r.url) else None)
        page.set_default_timeout(15_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def is_local(url):
    return url.startswith(("http://127.0.0.1:", "data:", "blob:", "file:"))


def log_in(page, address, path="/hpo/"):
    page.goto(address + path)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(re.compile(re.escape(address)))
    return page


def open_experiment(page):
    page.get_by_role("link", name=NAME).click()
    page.wait_for_selector("[data-figure] .main-svg")
    wait_for_figures(page)


def until(page, expression):
    """Waits for an expression to hold; playwright's own way needs eval in the page, which the page's policy refuses."""
    for _ in range(150):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {expression}")


def wait_for_figures(page):
    until(page, "[...document.querySelectorAll('[data-figure]')].every(f => f.dataset.drawn)")


DRAWN = """place => {
  const shapes = [...place.querySelectorAll('.scatterlayer path, .barlayer path')].filter(shape => {
    const box = shape.getBoundingClientRect();
    const style = getComputedStyle(shape);
    const inked = style.stroke !== 'none' || style.fill !== 'none';
    return inked && style.opacity !== '0' && box.width + box.height > 4;
  });
  const box = place.getBoundingClientRect();
  return { shapes: shapes.length, width: box.width, height: box.height };
}"""


def drawn(page):
    """By figure: how many shapes with ink and extent its plot area holds, and how large the figure is."""
    return {
        place.get_attribute("data-figure"): place.evaluate(DRAWN) for place in page.query_selector_all("[data-figure]")
    }


def no_sideways_scroll(page, width):
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_the_experiment_is_drawn_and_told(dashboard, visit, size):
    page = log_in(visit(size), dashboard)
    expect(page.get_by_role("heading", name="Experiments")).to_be_visible()
    expect(page.locator("#experiments")).to_contain_text("84 of 84 trials")
    no_sideways_scroll(page, SIZES[size]["width"])
    open_experiment(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    expect(page.locator(".verdicts li")).to_have_count(1)
    figures = drawn(page)
    assert {"curve_trials_median", "final", "pairs", "importance"} <= figures.keys()
    for key, found in figures.items():
        assert found["shapes"] >= 1, key
        assert found["width"] > 250, key
        assert found["height"] > 200, key
    # 14 repeats and 2 means at the least.
    assert figures["final"]["shapes"] >= 16
    no_sideways_scroll(page, SIZES[size]["width"])
    # Every picture has its table.
    for card in page.query_selector_all(".card:has([data-figure])"):
        card.query_selector("summary").click()
        assert card.query_selector("table").is_visible()
    no_sideways_scroll(page, SIZES[size]["width"])


def test_curves_switch_between_costs_and_statistics(dashboard, visit):
    page = log_in(visit(), dashboard)
    open_experiment(page)
    place = page.locator("[data-figure]").first
    title = place.locator(".xtitle")
    expect(title).to_have_text("finished trials")
    for button, expected in (
        ("epochs", "epochs trained"),
        ("seconds", "worker-seconds"),
        ("trials", "finished trials"),
    ):
        page.get_by_role("button", name=button, exact=True).click()
        expect(title).to_have_text(expected)
        expect(page.get_by_role("button", name=button, exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="IQM").click()
    expect(place).to_have_attribute("data-drawn", "curve_trials_iqm")
    assert drawn(page)["curve_trials_iqm"]["shapes"] >= 2


def luminance(page, selector, what="backgroundColor"):
    color = page.eval_on_selector(selector, f"e => getComputedStyle(e).{what}")
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3


def test_dark_theme_follows_the_system_and_the_switch(dashboard, visit):
    page = log_in(visit(theme="dark"), dashboard)
    open_experiment(page)
    assert luminance(page, "body") < 40
    assert luminance(page, ".card h2", "color") > 180
    assert luminance(page, ".xtick text", "fill") > 180
    page.get_by_role("button", name="Switch between light and dark").click()
    assert luminance(page, "body") > 220
    until(page, "getComputedStyle(document.querySelector('.xtick text')).fill.match(/\\d+/)[0] < 80")
    page.reload()
    assert luminance(page, "body") > 220  # it is remembered


@pytest.mark.parametrize("form", ["TOML", "JSON"])
def test_the_download_is_a_file_that_trains(dashboard, visit, environment, tmp_path, form):
    page = log_in(visit(), dashboard)
    open_experiment(page)
    with page.expect_download() as started:
        page.locator(".config", has_text="tpe").get_by_role("link", name=form).click()
    file = tmp_path / f"best.{form.lower()}"
    started.value.save_as(file)
    assert started.value.suggested_filename.endswith(f"tpe-best.{form.lower()}")
    content = json.loads(file.read_text()) if form == "JSON" else tomllib.loads(file.read_text())
    assert content["provenance"]["sampler"] == "tpe"
    done = subprocess.run(
        [sys.executable, "-m", "hpo", "train", str(file), "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reproduced"] is True


def test_login_and_logout(dashboard, visit):
    page = visit(allowed=("status of 403",))
    page.goto(dashboard + "/dashboard")
    assert "/hpo/login" in page.url
    page.get_by_label("Password").fill("wrong horse")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(dashboard + "/dashboard")
    page.goto(dashboard + "/hpo/")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    page.goto(dashboard + "/hpo/")
    expect(page.get_by_label("Password")).to_be_visible()


# Optuna's own pages: their bundle warns of its own, and asks for a favicon with a wrong type.
THEIRS = ("MUI", "React", "Warning", "warning:", "WebGL")


def test_optunas_pages_carry_the_comparison(dashboard, visit):
    page = log_in(visit(allowed=THEIRS), dashboard)
    open_experiment(page)
    page.get_by_role("link", name="All studies in Optuna").click()
    expect(page.get_by_text("Compare", exact=False).first).to_be_visible()
    page.wait_for_selector(".main-svg")
    page.go_back()
    page.get_by_text("Studies", exact=True).click()
    page.locator("a[href^='/dashboard/studies/']", has_text=f"{NAME}/tpe/0").first.click()
    expect(page.get_by_text("Samplers: best so far by finished trials").first).to_be_visible()
    address = page.url.removesuffix("/").removesuffix("/history")
    page.goto(f"{address}/note")
    expect(page.get_by_role("link", name="The whole comparison")).to_be_visible()
    expect(page.locator("table", has_text="mean best")).to_be_visible()
    page.get_by_role("link", name="The whole comparison").click()
    page.wait_for_url(re.compile("/hpo/experiment"))


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
    study.add_trial(optuna.trial.create_trial(value=0.98761, user_attrs={"lineage": 6, "attempt": 1, "epochs": 5}))
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
    write_html(compare(storage, ["one", "two"]), Path(tmp_path / "page.html"))
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
    assert isinstance(compare(storage, ["one"]), Report)
