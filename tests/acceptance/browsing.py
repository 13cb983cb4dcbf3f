"""A real Chromium for tests: opens pages, sees what is drawn, and fails a test for what went wrong."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("HPO_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium: apt-get install chromium, or HPO_TEST_CHROMIUM"
)
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 400, "height": 800}}


@pytest.fixture(scope="module", name="chromium")
def chromium_fixture():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(name="visit")
def visit_fixture(chromium):
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


def until(page, expression):
    """Waits for an expression to hold; playwright's own way needs eval in the page, which the page's policy refuses."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {expression}")


def wait_for_figures(page):
    """Has every figure drawn, those below the window too, as before a page is printed."""
    page.wait_for_selector("[data-figure]", state="attached")
    load_all = "(window.hpoLoadAll && window.hpoLoadAll())"  # the script may still be on its way
    until(page, f"{load_all}, [...document.querySelectorAll('[data-figure]')].every(f => f.dataset.drawn)")


DRAWN = """place => {
  const shapes = [...place.querySelectorAll('.scatterlayer path, .barlayer path, .contourlayer path')].filter(shape => {
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
