"""What is published and kept is, byte for byte, what `hashes.json` has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden import runs


@pytest.mark.parametrize("name", runs.RUNS)
def test_bytes_and_digests_are_those_on_record(name: str, tiny_tokenizer: Path, tmp_path: Path) -> None:
    golden = json.loads(runs.HASHES.read_text("utf-8"))
    if golden["versions"] != runs.versions():
        pytest.skip(f"hashes.json is of {golden['versions']}")
    assert runs.run(name, tiny_tokenizer, tmp_path / "run") == golden["runs"][name]
