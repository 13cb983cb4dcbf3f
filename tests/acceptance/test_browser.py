"""Every page in a real Chromium: an experiment that real workers ran, served by ``hpo dashboard``."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .browsing import (  # noqa: F401
    SIZES,
    chromium_fixture,
    drawn,
    needs_chromium,
    no_sideways_scroll,
    until,
    visit_fixture,
    wait_for_figures,
)
from .conftest import REPOSITORY

pytestmark = needs_chromium

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
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()
        assert not (Path(environment["HPO_HOME"]) / "postgres" / "postmaster.pid").exists()  # the server went with it


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
