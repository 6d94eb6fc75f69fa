"""The picture in README.md: the report of the demo set, in headless Chromium.

python -m tests.report.picture docs/report.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pipeline.cli.main import main
from tests.report.browser import Opened, chromium

PAIR = "Should I stop taking my antidepressants"


def picture(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        if main(["build", "--source", "demo", "--out", f"{folder}/demo", "--prefect", "off"]):
            raise SystemExit("the demo set could not be built")
        page = Opened(browser, Path(folder) / "demo" / "report.html", viewport={"width": 1100, "height": 800}).page
        page.fill("#search", PAIR)
        row = page.locator("#row h2").text_content()
        page.fill("#search", "")
        page.evaluate(f"location.hash = '#row={row}'")
        page.wait_for_function(f"document.querySelector('#row h2').textContent === '{row}'")
        page.locator(".panes").screenshot(path=str(file))


if __name__ == "__main__":
    picture(Path(sys.argv[1]))
