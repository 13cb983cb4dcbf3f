"""The page of real experiments in a real Chromium: running, finished, one repeat, ten, own trainer, classifier."""

import os
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from hpo.cli.dashboard import exporter
from hpo.dashboard.server import Server, make_access, make_app
from hpo.settings import Settings

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

OWN = """
name = "own"
trainer = "sleeping"
metric = "value"
samplers = ["tpe"]
budget = { trials = 30 }
[fixed]
epochs = 3
epoch_seconds = 0.1
[space]
lr = { low = 1e-3, high = 1.0, log = true }
beta = { low = 0.8, high = 0.99 }
batch_size = [32, 64]
"""
CLASSIFIER = """
name = "classifier"
trainer = "classifier"
metric = "val_accuracy"
samplers = ["random", "tpe"]
repeats = 10
budget = { trials = 4 }
pruner = "median"
[fixed]
dataset = "digits"
network = "mlp"
epochs = 2
batch_size = 64
[space]
lr = { low = 1e-3, high = 1.0, log = true }
width_1 = { low = 16, high = 64, log = true }
scheduler = ["constant", "exponential"]
exponential_gamma = { low = 0.8, high = 0.99, when = { scheduler = "exponential" } }
"""


@pytest.fixture
def serve(storage, tmp_path):
    app = make_app(
        storage, tmp_path / "artifacts", make_access("127.0.0.1"), exporter(storage, Settings(home=tmp_path))
    )
    server = Server(app, "127.0.0.1", 0)
    thread = server.start()
    yield server.url
    server.close()
    thread.join(5)


@pytest.fixture
def launch(address, home, tmp_path):
    """Starts ``hpo launch`` of a study file's text on the test's database."""
    environment = {**os.environ, "HPO_HOME": str(home), "HPO_STORAGE": address, "PYTHONPATH": str(REPOSITORY)}
    processes = []

    def start(text, *arguments):
        (tmp_path / "study.toml").write_text(text)
        command = [sys.executable, "-m", "hpo", "launch", "study.toml", "--gpus", "none", *arguments]
        process = subprocess.Popen(
            command,
            env={**environment, "HPO_TRAINERS": "benchmarks.sleeping"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def test_one_search_while_it_runs_and_once_it_is_finished(storage, serve, launch, visit):
    process = launch(OWN, "--workers", "2")
    page = visit(allowed=("status of 404",))
    page.goto(f"{serve}hpo/")
    page.get_by_role("link", name="own").click(timeout=60_000)
    facts = page.locator(".facts")
    until(page, "document.querySelector('.facts') !== null")
    expect(facts.locator("div", has_text="workers alive").locator("dd")).to_have_text("2", timeout=30_000)
    until(page, "parseFloat([...document.querySelectorAll('.facts dd')][3].textContent) > 0")  # trials a minute
    expect(facts.locator("div", has_text="time left").locator("dd")).to_contain_text("s")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".chip.finished")).to_be_visible(timeout=30_000)
    assert page.locator(".facts").count() == 0
    expect(page.locator(".samplers tbody tr")).to_contain_text("30 of 30")
    until(page, "document.body.dataset.token === document.body.dataset.shown")
    wait_for_figures(page)
    figures = drawn(page)
    wanted = {"curve_trials_median_value", "learning", "parallel", "importance", "contour"}
    assert figures.keys() == wanted | {"param:lr", "param:beta", "param:batch_size"}  # nothing of repeats or tests
    assert {key: found for key, found in figures.items() if not found["shapes"]} == {}
    words = page.locator("main").inner_text().lower()
    assert not any(word in words for word in ("p =", "repeat", "verdict", "wilcoxon", "chance"))


@pytest.mark.release
@pytest.mark.parametrize(("size", "theme"), [("desktop", "light"), ("desktop", "dark"), ("phone", "light")])
def test_ten_repeats_of_the_classifier(storage, serve, launch, visit, size, theme):
    process = launch(CLASSIFIER, "--workers", "2")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    page = visit(size, theme)
    page.goto(f"{serve}hpo/experiment?name=classifier")
    wait_for_figures(page)
    figures = drawn(page)
    assert {"final", "pairs", "importance", "contour", "param:exponential_gamma"} <= figures.keys()
    assert {key: found for key, found in figures.items() if not found["shapes"]} == {}
    expect(page.locator(".samplers tbody tr")).to_have_count(2)
    expect(page.locator(".verdict")).to_contain_text("10 repeats")
    no_sideways_scroll(page, SIZES[size]["width"])
