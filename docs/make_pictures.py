"""Makes the two pictures of the README from a real run: ``python docs/make_pictures.py`` (a minute; needs Chromium).

``docs/pictures/page.png`` is the first screen of an experiment's page, ``docs/pictures/terminal.svg`` what ``hpo
status`` prints of the same experiment, 80 columns wide.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
SIZE = {"width": 1320, "height": 640}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HPO_HOME": home, "COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm-256color"}

        def hpo(*arguments: str) -> str:
            command = [sys.executable, "-m", "hpo", *arguments]
            return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=ROOT).stdout

        hpo("launch", "studies/digits_mlp.toml", "--workers", "2")
        terminal(hpo("status", "digits-mlp"))
        command = [sys.executable, "-m", "hpo", "dashboard", "--port", "0"]
        server = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert server.stdout is not None
            address = next(found[0] for line in server.stdout if (found := re.search(r"http://[\w.:]+", line)))
            page(f"{address}/hpo/experiment?name=digits-mlp")
        finally:
            server.terminate()
            server.communicate()


def terminal(text: str) -> None:
    console = Console(record=True, width=84, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print("$ hpo status digits-mlp", style="bold", highlight=False)
    for line in text.splitlines():
        if not line.startswith("checkpoints:"):  # the path of a temporary folder
            console.print(Text.from_ansi(line), no_wrap=len(line) <= 84)
    console.save_svg(str(PICTURES / "terminal.svg"), title="hpo")
    print(f"{PICTURES / 'terminal.svg'}")


def page(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("HPO_TEST_CHROMIUM") or shutil.which("chromium"), args=ARGUMENTS
        )
        tab = browser.new_page(viewport=SIZE, color_scheme="light")
        tab.goto(address)
        tab.wait_for_load_state("networkidle")
        time.sleep(3)  # figures are drawn when they come into view
        tab.screenshot(path=str(PICTURES / "page.png"))
        browser.close()
    print(f"{PICTURES / 'page.png'}")


if __name__ == "__main__":
    main()
