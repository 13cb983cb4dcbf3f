"""The pages beside an experiment's own in a real Chromium: list, trials, a trial, workers, steering."""

from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from .browsing import (  # noqa: F401
    SIZES,
    chromium_fixture,
    needs_chromium,
    no_sideways_scroll,
    visit_fixture,
)
from .test_browser_experiments import CLASSIFIER, launch, serve  # noqa: F401

pytestmark = needs_chromium

RUNNING = """
name = "runs"
trainer = "sleeping"
metric = "value"
samplers = ["tpe"]
budget = { trials = 400 }
[fixed]
epochs = 100
epoch_seconds = 0.5
[space]
lr = { low = 1e-3, high = 1.0, log = true }
"""


def address(serve, page, name, **values):  # noqa: F811
    return f"{serve}hpo/{page}?{urlencode({'name': name, **values})}"


def look(page, size, url, heading):
    """Opens a page: it answers, has one heading of its own and nothing that runs out of the window."""
    assert page.goto(url).status == 200
    expect(page.locator("h1")).to_have_text(heading)
    no_sideways_scroll(page, SIZES[size]["width"])


def wait_for(page, process, url, selector):
    """Opens a page until it has what the selector says; the launch behind it must go on."""
    for _ in range(120):
        page.goto(url)
        if page.locator(selector).count():
            return
        assert process.poll() is None, process.stdout.read()
        page.wait_for_timeout(500)
    raise AssertionError(f"never on {url}: {selector}")


def test_the_pages_of_one_search_that_runs(storage, serve, launch, visit):  # noqa: F811
    process = launch(RUNNING, "--workers", "1")
    page = visit()
    wait_for(page, process, f"{serve}hpo/", "tbody a:has-text('runs')")
    expect(page.locator("tbody tr")).to_have_count(1)
    wait_for(page, process, address(serve, "workers", "runs"), "section.worker tbody a")
    expect(page.locator("main")).to_contain_text("1 alive")
    no_sideways_scroll(page, SIZES["desktop"]["width"])
    page.goto(address(serve, "trials", "runs"))
    expect(page.locator("#trials tbody .chip.running")).to_have_count(1)
    page.locator("#trials tbody th a").first.click()
    expect(page.locator("h1")).to_have_text("Trial tpe/0/0")
    # A trial is pruned in the browser: the page asks first, then a worker obeys with its next heartbeat.
    page.get_by_role("link", name="Prune").click()
    page.locator("form[method=post] button.filled").click()
    wait_for(page, process, address(serve, "trials", "runs", state="pruned"), "#trials tbody .chip.pruned")
    page.goto(address(serve, "steering", "runs"))
    expect(page.locator("main")).to_contain_text("prune")


@pytest.mark.release
def test_the_pages_of_ten_repeats_of_the_classifier(storage, serve, launch, visit):  # noqa: F811
    process = launch(CLASSIFIER, "--workers", "2")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    for size, theme in (("desktop", "light"), ("desktop", "dark"), ("phone", "light")):
        page = visit(size, theme)
        page.goto(f"{serve}hpo/")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody")).to_contain_text("finished")
        look(page, size, address(serve, "trials", "classifier"), "Trials")
        expect(page.locator("#trials tbody tr")).to_have_count(80)
        expect(page.locator("main")).to_contain_text("80 trials")
        look(page, size, address(serve, "workers", "classifier"), "Workers")
        assert page.goto(address(serve, "trial", "classifier", trial="tpe/9/3")).status == 200
        expect(page.locator("h1")).to_have_text("Trial tpe/9/3")
        no_sideways_scroll(page, SIZES[size]["width"])
        assert page.goto(address(serve, "steering", "classifier")).status == 200
        no_sideways_scroll(page, SIZES[size]["width"])
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(dark.partition("(")[2].partition(",")[0])
        assert (red < 80) == (theme == "dark")
