"""Token diffs of published pairs, in colour for a terminal. Control characters never reach it: they are made visible."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.text import Text

from pipeline.labels.signals import KEEP
from pipeline.labels.tokenization import LabelTokenizer

# Brackets beside the colours keep the diff readable without them.
_REMOVED, _ADDED = ("[-", "-]", "red"), ("{+", "+}", "green")


def sample_diffs(out: Path, manifest: dict[str, Any], tokenizer: LabelTokenizer, count: int) -> Iterator[Text]:
    """The pairs with the smallest edit distance among the first rows, one drawing each."""
    if not manifest["rows"]["published"]:
        return
    with pq.ParquetFile(out / manifest["files"][0]["path"]) as file:
        batch = next(file.iter_batches(256))
    for row in pa.Table.from_batches([batch]).sort_by("edit_distance").slice(0, count).to_pylist():
        yield draw(row, tokenizer)


def draw(row: dict[str, Any], tokenizer: LabelTokenizer) -> Text:
    """One published row: its query, then the answer with removed and added tokens marked."""
    # Answers that the source brought have no rewards.
    scored = row["reward_revised"] is not None and row["reward_initial"] is not None
    gain = f", reward gain {row['reward_revised'] - row['reward_initial']:+.2f}" if scored else ""
    text = Text()
    text.append(f"\n{row['id']}", "bold")
    text.append(f"  {row['diagnosis']}, distance {row['edit_distance']:.2f}{gain}\n", "dim")
    text.append(f"{visible(row['messages'][-1]['content'])[:300]}\n", "cyan")
    start = len(row["prompt_input_ids"])
    initial = list(zip(tokenizer.pieces(row["initial_input_ids"][start:]), row["initial_ops"][start:], strict=True))
    revised = list(zip(tokenizer.pieces(row["revised_input_ids"][start:]), row["revised_ops"][start:], strict=True))
    while initial or revised:
        removed, added = _edited(initial), _edited(revised)
        for pieces, (opening, closing, style) in ((removed, _REMOVED), (added, _ADDED)):
            if pieces:
                text.append(f"{opening}{visible(''.join(pieces))}{closing}", style)
        initial, revised = initial[len(removed) :], revised[len(added) :]
        if initial and revised:
            text.append(visible(revised[0][0]))
            initial, revised = initial[1:], revised[1:]
    return text


def _edited(tokens: Sequence[tuple[str, int]]) -> list[str]:
    return [piece for piece, _ in takewhile(lambda token: token[1] != KEEP, tokens)]


def visible(text: str) -> str:
    """The text with every control, format and bidi character but the line feed shown as its code."""
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else f"<{ord(c):04x}>"
        for c in text
    )
