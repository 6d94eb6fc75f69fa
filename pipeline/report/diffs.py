"""Token diffs of published pairs, in colour for a terminal. Control characters never reach it: they are made visible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.text import Text

from pipeline.dataset.reader import open_file
from pipeline.labels.alignment import KEEP
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.report import tokens
from pipeline.text import visible

# Brackets beside the colours keep the diff readable without them.
_MARKS = {"kept": ("", "", ""), "del": ("[-", "-]", "red"), "ins": ("{+", "+}", "green")}
_QUERY = 300
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


def draw(row: dict[str, Any], tokenizer: LabelTokenizer | None, *, whole: bool = False) -> Text:
    """One published row: its query, then the answer with removed and added tokens marked. whole: every turn, uncut."""
    text = heading(row, whole=whole)
    sides = tokens.of_row(row, tokenizer)
    append_diff(text, *((sides[side].texts, sides[side].ops) for side in tokens.SIDES))
    return text


def heading(row: dict[str, Any], *, whole: bool = False) -> Text:
    """What a published row is: id, diagnosis, distance, reward gain, and its query."""
    # Answers that the source brought have no rewards.
    scored = row["reward_revised"] is not None and row["reward_initial"] is not None
    gain = f", reward gain {row['reward_revised'] - row['reward_initial']:+.2f}" if scored else ""
    text = Text()
    text.append(f"\n{visible(row['id'])}", "bold")
    text.append(f"  {visible(row['diagnosis'])}, distance {row['edit_distance']:.2f}{gain}\n", "dim")
    return append_query(text, row["messages"], whole=whole)


def append_query(text: Text, messages: list[dict[str, str]], *, whole: bool) -> Text:
    """Every turn with its role; or the start of the last one."""
    for message in messages if whole else ():
        text.append(f"{visible(message['role'])}: ", "not bold dim").append(
            f"{visible(message['content'])}\n", "not bold cyan"
        )
    if messages and not whole:
        content = messages[-1]["content"]
        more = "…" if len(content) > _QUERY else ""
        text.append(f"{visible(content[:_QUERY])}{more}\n", "not bold cyan")
    return text


def append_diff(text: Text, initial: Pieces, revised: Pieces) -> None:
    """Both answers as one text: removed and added pieces marked, kept ones as the revised answer has them."""
    for kind, part in marked(initial, revised):
        opening, closing, style = _MARKS[kind]
        text.append(f"{opening}{visible(part)}{closing}", style)


def marked(initial: Pieces, revised: Pieces) -> Iterator[tuple[str, str]]:
    """The same as parts: "kept", "del" or "ins", and its text."""
    for removed, added in aligned(initial[1], revised[1]):
        kept = bool(removed and initial[1][removed[0]] == KEEP) or bool(added and revised[1][added[0]] == KEEP)
        if kept:
            pieces, places = (revised[0], added) if added else (initial[0], removed)
            yield "kept", "".join(pieces[n] for n in places)
            continue
        for kind, (pieces, _), places in (("del", initial, removed), ("ins", revised, added)):
            # Of a character's several tokens, one has the text.
            if text := "".join(pieces[n] for n in places):
                yield kind, text


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
