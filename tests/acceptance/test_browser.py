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
FIGURES = {
    *("curve_trials_median_value", "learning", "final", "pairs", "parallel", "importance", "contour"),
    *("param:lr", "param:beta"),
}
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
    expect(page.locator(".samplers tbody tr")).to_have_count(2)
    assert page.locator(".samplers svg.spark path").count() == 2
    figures = drawn(page)
    assert figures.keys() == FIGURES
    for key, found in figures.items():
        assert found["shapes"] >= 1, key
        assert found["width"] > 250, key
        assert found["height"] > 200, key
    # 14 repeats and 2 means at the least.
    assert figures["final"]["shapes"] >= 16
    no_sideways_scroll(page, SIZES[size]["width"])
    # Every picture has its table.
    for card in page.query_selector_all(".card:has(.as-table)"):
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
        ("worker-time", "worker-seconds"),
        ("wall-clock", "seconds of wall-clock time since the first trial began"),
        ("trials", "finished trials"),
    ):
        page.get_by_role("button", name=button, exact=True).click()
        expect(title).to_have_text(expected)
        expect(page.get_by_role("button", name=button, exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="IQM").click()
    expect(place).to_have_attribute("data-drawn", "curve_trials_iqm_value")
    assert drawn(page)["curve_trials_iqm_value"]["shapes"] >= 2
    page.get_by_role("button", name="log distance").click()
    expect(place).to_have_attribute("data-drawn", "curve_trials_iqm_distance")
    assert place.evaluate("place => place.layout.yaxis.type") == "log"
    assert drawn(page)["curve_trials_iqm_distance"]["shapes"] >= 2


def test_figures_of_one_sampler_and_of_one_study(dashboard, visit):
    page = log_in(visit(), dashboard)
    open_experiment(page)
    lines = "document.querySelector('[data-figure=curve_trials_median_value]').data.filter(t => t.showlegend !== false)"
    assert page.evaluate(f"{lines}.map(t => t.name)") == ["random", "tpe"]
    for label, names, curves in (("tpe, all repeats", ["tpe"], 42), (f"{NAME}/random/3", ["random"], 6)):
        page.get_by_label("Figures of").select_option(label)
        wait_for_figures(page)
        until(page, f"JSON.stringify({lines}.map(t => t.name)) === JSON.stringify({json.dumps(names)})")
        until(page, "[...document.querySelectorAll('[data-lazy]')].every(f => f.dataset.scope === scope.value)")
        ends = page.evaluate(
            "document.querySelector('[data-figure=learning]').data"
            ".map(t => t.y.filter(v => v === null).length).reduce((a, b) => a + b)"
        )
        assert ends == curves  # a gap after each trial's curve


def test_the_page_is_used_with_the_keyboard_alone(dashboard, visit):
    page = log_in(visit(), dashboard)
    open_experiment(page)
    page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(() => { const e = document.activeElement, s = getComputedStyle(e);"
                " return [e.tagName, e.textContent.trim().slice(0, 40), s.outlineStyle !== 'none']; })()"
            )
        )
    assert all(has_outline for _, _, has_outline in reached)
    labels = {label for _, label, _ in reached}
    assert {"Every pair of samplers", "Copy", "TOML", "Fixed values", "epochs", "log distance"} <= labels
    assert any(tag == "SELECT" for tag, _, _ in reached)
    # Every figure and control has a name for a screen reader; every picture is also a table.
    unnamed = page.evaluate(
        "[...document.querySelectorAll('[role=img], [role=progressbar], button, input, select')].filter(e =>"
        " !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.title)).length"
    )
    assert unnamed == 0


def test_the_best_configuration_is_copied(dashboard, visit, environment):
    page = log_in(visit(permissions=["clipboard-read", "clipboard-write"]), dashboard)
    page.get_by_role("link", name=NAME).click()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible(timeout=30_000)
    copied = tomllib.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["provenance"]["experiment"] == NAME


def test_tables_and_links_are_there_without_javascript(dashboard, visit):
    page = log_in(visit(java_script_enabled=False), dashboard)
    page.get_by_role("link", name=NAME).click()
    expect(page.locator(".verdict")).to_contain_text("7 repeats")
    expect(page.locator(".samplers tbody tr")).to_have_count(2)
    expect(page.locator(".config table").first).to_contain_text("beta")
    page.get_by_role("link", name="their numbers are here as tables").click()
    expect(page.locator("table")).to_have_count(11)
    expect(page.get_by_text("Median best so far by finished trials")).to_be_visible()


def test_a_login_that_expires_asks_again_and_comes_back(dashboard, visit):
    page = log_in(visit(allowed=("status of 401",)), dashboard)
    page.get_by_role("link", name=NAME).click()
    wait_for_figures(page)
    page.context.clear_cookies()
    page.evaluate("dispatchEvent(new Event('focus'))")
    page.wait_for_url(re.compile("/hpo/login"))
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)


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
        if not page.locator(".config[data-sampler=tpe]").is_visible():
            page.locator("summary", has_text="Best of the other samplers").click()
        page.locator(".config[data-sampler=tpe]").get_by_role("link", name=form).click()
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
    page.locator("summary", has_text="Studies in Optuna").click()
    page.get_by_role("link", name="All studies in Optuna").click()
    expect(page.get_by_text("Compare", exact=False).first).to_be_visible(timeout=30_000)
    page.wait_for_selector(".main-svg")
    page.go_back()
    page.locator("summary", has_text="Studies in Optuna").click()
    page.locator("a[href^='/dashboard/studies/']", has_text=f"{NAME}/tpe/0").first.click()
    expect(page.get_by_text("Samplers: best so far by finished trials").first).to_be_visible()
    address = page.url.removesuffix("/").removesuffix("/history")
    page.goto(f"{address}/trials?numbers=0")
    expect(page.get_by_text("hpo:given", exact=False).first).to_be_visible()
    no_sideways_scroll(page, SIZES["desktop"]["width"])  # a long attribute wraps
    page.get_by_role("link", name="← experiment").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    page.goto(f"{address}/note")
    expect(page.get_by_role("link", name="The whole comparison")).to_be_visible()
    expect(page.locator("table", has_text="mean best")).to_be_visible()
    page.get_by_role("link", name="The whole comparison").click()
    page.wait_for_url(re.compile("/hpo/experiment"))
