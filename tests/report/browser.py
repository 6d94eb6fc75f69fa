"""A headless Chromium that must not complain: every console message, page error and request but the page itself is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@contextmanager
def chromium() -> Iterator[Any]:
    """Skips where there is no playwright, or no browser on PATH, in CHROMIUM or by `playwright install chromium`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as own:
        try:
            browser = own.chromium.launch(executable_path=path, args=_FLAGS)
        except playwright.Error as error:
            pytest.skip(f"no Chromium to drive: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


class Opened:
    """A report opened from disk. complaints: what went to the console or was thrown. requests: what the page asked for."""

    def __init__(self, browser: Any, file: Path, hash_: str = "", **context: Any) -> None:
        self.page = browser.new_context(**context).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = file.as_uri()
        self.page.goto(self.url + hash_)

    @property
    def status(self) -> str:
        return str(self.page.locator("#status").text_content())

    @property
    def row(self) -> str:
        """The id of the chosen row."""
        return str(self.page.locator("#row h2").text_content())

    def settle(self) -> None:
        """Nothing was said, thrown or asked for."""
        assert self.complaints == []
        assert self.requests == [self.url]


def grave(page: Any, part: str | None = None) -> list[tuple[str, str]]:
    """What axe finds serious or critical on the page, or in that part of it. Skips where axe is not installed."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    found = axe.Axe().run(page, context=part).response["violations"]
    return [(v["id"], v["nodes"][0]["html"][:100]) for v in found if v["impact"] in ("serious", "critical")]
