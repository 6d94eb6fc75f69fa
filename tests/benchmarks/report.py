"""The report of 100,000 rows: seconds, peak memory, bytes; and filtering 2,000 pairs in a browser.

`--quick`: 2,000 rows. The rows are the tests' synthetic pairs, one block of them repeated with other ids.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa

from tests import pairs
from tests.benchmarks.measure import Figure, repeated

_CODE = """
import sys, time
from pipeline.cli.main import main
from tests.benchmarks.measure import peak_mb
start = time.perf_counter()
assert main(["report", sys.argv[1]]) == 0
print(time.perf_counter() - start, peak_mb())
"""
_BLOCK = 2000


def run(*, quick: bool) -> list[Figure]:
    rows = _BLOCK if quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        out = _data_set(Path(folder), rows)
        done = subprocess.run([sys.executable, "-c", _CODE, str(out)], capture_output=True, text=True, check=True)
        seconds, megabytes = map(float, done.stdout.splitlines()[-1].split())
        html = out / "report.html"
        figures = [
            Figure(f"report of {rows:,} rows", seconds, "s", target="< 60 s"),
            Figure("its peak memory", megabytes, "MB", target="< 1000 MB"),
            Figure("its size", html.stat().st_size / 1e6, "MB", target="< 8 MB"),
        ]
        return figures + _filtering(html)


def _data_set(folder: Path, rows: int) -> Path:
    """A published folder whose files hold the same labelled block again and again, each row with an id of its own."""
    from tests.conftest import tiny_tokenizer

    class Factory:
        def mktemp(self, name: str) -> Path:
            (folder / name).mkdir()
            return folder / name

    tokenizer = tiny_tokenizer.__wrapped__(Factory())  # type: ignore[attr-defined]
    labelled = pairs._labelled
    made: list[pa.Table] = []

    def repeated_block(part: list[dict[str, object]], own: object) -> list[pa.Table]:
        if not made:
            made.append(pa.concat_tables(labelled(part[:_BLOCK], own)))  # type: ignore[arg-type]
        ids = pa.array([str(row["id"]) for row in part], pa.string())
        copies = pa.concat_tables([made[0]] * -(-len(part) // _BLOCK)).slice(0, len(part))
        named = copies.set_column(0, "id", ids)
        return [named.slice(start, 512) for start in range(0, len(part), 512)]

    with patch.object(pairs, "_labelled", repeated_block):
        return pairs.data_set(folder / "out", tokenizer, rows, rows_per_file=50_000)


def _filtering(html: Path) -> list[Figure]:
    from tests.report.browser import Opened, chromium

    times: list[float] = []
    with chromium() as browser:
        opened = Opened(browser, html)
        for text in ("a", "the", "in", "no such text", "e", ""):
            opened.page.fill("#search", text)
            times.append(float(opened.page.evaluate("document.body.dataset.filterMs")))
        shown = json.loads(opened.page.evaluate("document.getElementById('data').textContent"))["pairs"]
    return [repeated(f"filter {len(shown):,} pairs and draw", "ms", times, "< 200 ms")]
