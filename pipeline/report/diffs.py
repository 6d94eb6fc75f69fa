"""The two answers of a pair as tokens with edit operations, and their diff in colour for a terminal.

Control characters never reach the terminal: they are made visible.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rapidfuzz.distance import Levenshtein
from rich.text import Text

from pipeline.dataset.best import best_rows
from pipeline.dataset.manifest import file_entries
from pipeline.labels.alignment import DELETE, INSERT, KEEP, SUBSTITUTE
from pipeline.labels.tokenizer import LabelTokenizer, TokenizedAnswer
from pipeline.text import visible

SIDES = ("initial", "revised")
# Brackets beside the colours keep the diff readable without them.
_MARKS = {"kept": ("", "", ""), "del": ("[-", "-]", "red"), "ins": ("{+", "+}", "green")}
_QUERY_CHARACTERS = 300
_STEPS = {"equal": (KEEP, KEEP), "replace": (SUBSTITUTE, SUBSTITUTE)}


class Token(NamedTuple):
    """One token of an answer. id and weight are None where the labels' tokenizer is not at hand; then it is a word."""

    id: int | None
    text: str
    op: int
    weight: float | None


def sample_diffs(out: Path, manifest: dict[str, Any], tokenizer: LabelTokenizer, count: int) -> Iterator[Text]:
    """Draw the `count` best pairs."""
    rows, _ = best_rows([entry.path for entry in file_entries(out, manifest)], count)
    return (draw(row, tokenizer) for row in rows)


def draw(row: dict[str, Any], tokenizer: LabelTokenizer | None, *, whole: bool = False) -> Text:
    """One published row: id, diagnosis, distance, reward gain, critique, query (whole: uncut), and the diff of its answers."""
    # Pre-made pairs have no rewards.
    scored = row["reward_revised"] is not None and row["reward_initial"] is not None
    gain = f", reward gain {row['reward_revised'] - row['reward_initial']:+.2f}" if scored else ""
    text = Text()
    text.append(f"\n{visible(row['id'])}", "bold")
    text.append(f"  {visible(row['diagnosis'])}, distance {row['edit_distance']:.2f}{gain}\n", "dim")
    # Older data sets have no critique.
    if critique := row.get("critique"):
        text.append(f"{visible(critique)}\n", "not bold italic")
    append_query(text, row["messages"], whole=whole)
    append_diff(text, *answers(row, tokenizer))
    return text


def append_query(text: Text, messages: list[dict[str, str]], *, whole: bool) -> None:
    """Append every turn with its role, or else the start of the last one."""
    for message in messages if whole else ():
        text.append(f"{visible(message['role'])}: ", "not bold dim")
        text.append(f"{visible(message['content'])}\n", "not bold cyan")
    if messages and not whole:
        content = messages[-1]["content"]
        more = "…" if len(content) > _QUERY_CHARACTERS else ""
        text.append(f"{visible(content[:_QUERY_CHARACTERS])}{more}\n", "not bold cyan")


def append_diff(text: Text, initial: Sequence[Token], revised: Sequence[Token]) -> None:
    """Append both answers as one text, with removed and added tokens marked."""
    for kind, part in diff(initial, revised):
        opening, closing, style = _MARKS[kind]
        text.append(f"{opening}{visible(part)}{closing}", style)


def diff(initial: Sequence[Token], revised: Sequence[Token]) -> Iterator[tuple[str, str]]:
    """Both answers as one text in reading order: "kept", "del" or "ins", and the text of that part.

    The two need not have equally many kept tokens for every signal; what is left over comes at the end.
    """
    i = j = 0
    while i < len(initial) or j < len(revised):
        removed, added = _edited(initial, i), _edited(revised, j)
        for kind, tokens in (("del", removed), ("ins", added)):
            # Of the several tokens of one character, only one has text.
            if text := "".join(token.text for token in tokens):
                yield kind, text
        i, j = i + len(removed), j + len(added)
        if not removed and not added:
            yield "kept", (revised[j] if j < len(revised) else initial[i]).text
            i, j = i + 1, j + 1


def _edited(tokens: Sequence[Token], start: int) -> Sequence[Token]:
    """The tokens from `start` up to the next kept one."""
    end = next((n for n in range(start, len(tokens)) if tokens[n].op == KEEP), len(tokens))
    return tokens[start:end]


def answers(row: dict[str, Any], tokenizer: LabelTokenizer | None) -> tuple[list[Token], list[Token]]:
    """Initial and revised answer of a published row: the stored tokens where `tokenizer` reproduces their ids, else words."""
    tokenized = tokenizer.tokenize_published(row) if tokenizer else []
    if not tokenized:
        return words(row["initial"], row["revised"])
    initial, revised = (_stored(row, side, answer) for side, answer in zip(SIDES, tokenized, strict=True))
    return initial, revised


def _stored(row: dict[str, Any], side: str, answer: TokenizedAnswer) -> list[Token]:
    ops, weights = (row[f"{side}_{kind}"][answer.prompt_length :] for kind in ("ops", "weights"))
    columns = zip(answer.response_ids, answer.pieces, ops, weights, strict=True)
    return [Token(id_, text, op, round(weight, 4)) for id_, text, op, weight in columns]


def words(initial: str, revised: str) -> tuple[list[Token], list[Token]]:
    """Both texts as words, with the operations that turn the first into the second."""
    before, after = (re.findall(r"\s*\S+|\s+$", text) for text in (initial, revised))
    removed: list[Token] = []
    added: list[Token] = []
    for step in Levenshtein.opcodes(before, after):
        remove, add = _STEPS.get(step.tag, (DELETE, INSERT))
        removed += [Token(None, text, remove, None) for text in before[step.src_start : step.src_end]]
        added += [Token(None, text, add, None) for text in after[step.dest_start : step.dest_end]]
    return removed, added
