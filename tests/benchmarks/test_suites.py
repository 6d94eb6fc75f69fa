"""Every suite still runs. What it measures, and whether that is enough, is for a quiet machine to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as benchmarks

# The others need minutes, a browser or a Prefect server.
SUITES = [
    "calls",
    "cost",
    "labels",
    "limits",
    "resume",
    "revision_styles",
    "rewards",
    "scale",
    "sources",
    "startup",
    "storage",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_gives_figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    report, page = tmp_path / "figures.json", tmp_path / "figures.md"
    assert benchmarks.main([name, "--quick", "--json", str(report), "--markdown", str(page)]) == 0
    figures = json.loads(report.read_text())["suites"][name]
    assert figures
    # Only what an extra brings may be left out, and then it says so.
    assert all(figure["value"] is not None or "skipped" in figure["target"] for figure in figures)
    assert all(f"| {figure['name']} |" in page.read_text() for figure in figures)


def test_every_suite_states_its_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == benchmarks.suites()
