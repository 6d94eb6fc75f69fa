"""The sheet hides which answer is the revision, and the page says of the revision what a reader said of A or B."""

import json
from pathlib import Path

from tests.readings.__main__ import page, read_marks, revision_first, sheet

ROWS = [
    {
        "id": name,
        "messages": [{"role": "user", "content": "<b>2 + 2?</b>"}],
        "reference": "4.",
        "initial": "It is *5* <script>alert(1)</script> truly.",
        "revised": "It is *4* <script>alert(1)</script> truly.",
    }
    for name in ("aa", "ab", "ac", "ad")
]


def _marks(path: Path, better: list[str]) -> Path:
    lines = [{"id": row["id"], "better": b, "coherent": [True, False]} for row, b in zip(ROWS, better, strict=True)]
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


def test_marks_of_a_or_b_become_marks_of_the_revision(tmp_path: Path) -> None:
    right = ["A" if revision_first(row) else "B" for row in ROWS]
    assert set(right) == {"A", "B"}
    told = sheet(ROWS)
    for row, name in zip(ROWS, right, strict=True):
        part = told.partition(f"## {row['id']}")[2]
        assert ("*4*" in part.partition("**B**")[0]) == (name == "A")
    found = read_marks(_marks(tmp_path / "marks", [*right[:3], "same"]), ROWS)
    assert found.verdicts == ["better", "better", "better", "same"]
    assert found.coherent == [(name == "B", name == "A") for name in right]


def test_the_page_counts_both_readers_and_shows_texts_as_they_are(tmp_path: Path) -> None:
    right = ["A" if revision_first(row) else "B" for row in ROWS]
    readers = [read_marks(_marks(tmp_path / name, marks), ROWS) for name, marks in (("1", right), ("2", ["same"] * 4))]
    told = page(ROWS, readers, "# Readings")
    assert "| better | 4 | 0 |" in told and "| same | 0 | 4 |" in told and "of 0; Cohen's κ 0.00" in told
    assert "<script>" not in told and "<b>2" not in told
    assert "<del> *5*</del><ins> *4*</ins>" in told
    assert "4 pairs; both readers say the same of 4; Cohen's κ undefined." in page(ROWS, [readers[0]] * 2, "")
