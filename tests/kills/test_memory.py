"""Peak memory doesn't grow with the rows: ten times as many take at most 1.3 times the memory.

1,000 and 10,000 rows here; `FIGA_ROWS=20000 python -m pytest -m slow tests/kills/test_memory.py` takes 20,000 and 200,000.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, SAMPLE, child_environment
from tests.kills import harness

MOST_TIMES = 1.3
BUILD = """
import json, sys
from pipeline.cli.main import main
from tests.memory import peak_mb
code = main(sys.argv[1:])
print(json.dumps([code, peak_mb()]))
"""
# Short texts of many lengths: what is measured is what is kept per row.
WORDS = "the small tower of stones by the river was built in a year that nobody here remembers any more".split()


def write_pairs(path: Path, rows: int) -> Path:
    with path.open("w") as file:
        for number in range(rows):
            initial = " ".join([*WORDS[: 3 + number % 15], str(number)])
            row = {
                "prompt": f"Question {number}?",
                "chosen": f"{initial}, so.",
                "initial": initial,
                "revised": f"{initial}, yes.",
            }
            file.write(json.dumps(row) + "\n")
    return path


def write_conversations(path: Path, rows: int) -> Path:
    lines = [json.loads(line) for line in SAMPLE.read_text("utf-8").splitlines()]
    with path.open("w") as file:
        for number in range(rows):
            row = lines[number % len(lines)]
            file.write(json.dumps({k: v.replace("Human:", f"Human: {number}.", 1) for k, v in row.items()}) + "\n")
    return path


def peak(out: Path, arguments: list[str]) -> float:
    """The peak memory of a run, in MB."""
    command = [sys.executable, "-c", BUILD, "build", "--out", str(out), "--prefect", "off", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code, megabytes = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    rows = json.loads((out / "manifest.json").read_text())["rows"]
    assert rows["published"] > rows["read"] / 10, rows
    return float(megabytes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pairs", "live"])
def test_peak_memory_is_that_of_a_tenth(kind: str, tiny_tokenizer: Path, tmp_path: Path) -> None:
    few, many = (int(os.environ.get("FIGA_ROWS", "1000")) * times for times in (1, 10))
    if kind == "pairs":
        settings = ["--source", "jsonl", "--set", f"labels.tokenizer={tiny_tokenizer}"]
        files = {n: write_pairs(tmp_path / f"{n}.jsonl", n) for n in (few, many)}
        peaks = [peak(tmp_path / f"{n}", [*settings, "--input", str(file)]) for n, file in files.items()]
    else:
        with harness.server(latency=0) as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", server.key)
            models = [f"{role}.model=openai/{role}@{server.openai_url}" for role in ("policy", "reviser")]
            models += [f"{role}.api_key_env=OPENAI_API_KEY" for role in ("policy", "reviser")]
            off = ["selection.eta1=off", "selection.eta2=off", "selection.eta3=off", "filter.min_reward_gain=-100"]
            settings = ["--source", "hh-rlhf", "--set", f"labels.tokenizer={tiny_tokenizer}", *models, *off]
            files = {n: write_conversations(tmp_path / f"{n}.jsonl", n) for n in (few, many)}
            peaks = [peak(tmp_path / f"{n}", [*settings, "--input", str(file)]) for n, file in files.items()]
    assert peaks[1] <= MOST_TIMES * peaks[0], peaks
