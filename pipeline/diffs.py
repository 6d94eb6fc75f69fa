"""Token diffs of published pairs, in colour for a terminal. Control characters never reach it: they are made visible."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.text import Text

from pipeline.labels.signals import KEEP
from pipeline.labels.tokenization import LabelTokenizer
from pipeline.storage.published import open_file

# Brackets beside the colours keep the diff readable without them.
_REMOVED, _ADDED = ("[-", "-]", "red"), ("{+", "+}", "green")
# Texts of tokens, and their operations.
Pieces = tuple[Sequence[str], Sequence[int]]


def sample_diffs(out: Path, manifest: dict[str, Any], tokenizer: LabelTokenizer, count: int) -> Iterator[Text]:
    """The pairs with the smallest edit distance among the first rows, one drawing each."""
    if not manifest["rows"]["published"]:
        return
    with open_file(out / manifest["files"][0]["path"]) as file:
        batch = next(file.iter_batches(256))
    for row in pa.Table.from_batches([batch]).sort_by("edit_distance").slice(0, count).to_pylist():
        yield draw(row, tokenizer)


def draw(row: dict[str, Any], tokenizer: LabelTokenizer) -> Text:
    """One published row: its query, then the answer with removed and added tokens marked."""
    text = heading(row)
    start = len(row["prompt_input_ids"])
    initial, revised = (tokenizer.pieces(row[f"{side}_input_ids"][start:]) for side in ("initial", "revised"))
    append_diff(text, (initial, row["initial_ops"][start:]), (revised, row["revised_ops"][start:]))
    return text


def heading(row: dict[str, Any]) -> Text:
    """What a published row is: id, diagnosis, distance, reward gain, and its query."""
    # Answers that the source brought have no rewards.
    scored = row["reward_revised"] is not None and row["reward_initial"] is not None
    gain = f", reward gain {row['reward_revised'] - row['reward_initial']:+.2f}" if scored else ""
    text = Text()
    text.append(f"\n{visible(row['id'])}", "bold")
    text.append(f"  {visible(row['diagnosis'])}, distance {row['edit_distance']:.2f}{gain}\n", "dim")
    text.append(f"{visible(row['messages'][-1]['content'])[:300]}\n", "cyan")
    return text


def append_diff(text: Text, initial: Pieces, revised: Pieces) -> None:
    """Both answers as one text: removed and added pieces marked, kept ones as the revised answer has them."""
    for removed, added in aligned(initial[1], revised[1]):
        kept = bool(removed and initial[1][removed[0]] == KEEP) or bool(added and revised[1][added[0]] == KEEP)
        if kept:
            pieces, places = (revised[0], added) if added else (initial[0], removed)
            text.append(visible("".join(pieces[n] for n in places)))
            continue
        for (pieces, _), places, (opening, closing, style) in ((initial, removed, _REMOVED), (revised, added, _ADDED)):
            if places:
                text.append(f"{opening}{visible(''.join(pieces[n] for n in places))}{closing}", style)


def aligned(initial: Sequence[int], revised: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Blocks of the two answers' operations in reading order: removed and added tokens, then a kept one of each, and so on.

    How many tokens were kept need not agree for every signal; what is left over comes at the end.
    """
    i = j = 0
    while i < len(initial) or j < len(revised):
        a, b = i, j
        while i < len(initial) and initial[i] != KEEP:
            i += 1
        while j < len(revised) and revised[j] != KEEP:
            j += 1
        if (a, b) == (i, j):
            i, j = min(i + 1, len(initial)), min(j + 1, len(revised))
        yield range(a, i), range(b, j)


def visible(text: str) -> str:
    """The text with every control, format and bidi character but the line feed shown as its code."""
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else f"<{ord(c):04x}>"
        for c in text
    )
