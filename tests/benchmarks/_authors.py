"""What the paper's released trainer does for its labels, and what it costs beside reading ours.

It tokenises the whole data set when it starts (each prompt twice alone, each text once with its prompt), and its collator
aligns every pair twice, over prompt and response, marks tokens one by one and looks for the EOS element by element: at each
batch of each epoch. Here it is given what favours it: a fast tokenizer (theirs is the slow one) and texts in memory. Ours
reads Parquet through `datasets` and pads.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from pipeline.dataset.open import open_dataset
from pipeline.labels.tokenizer import LabelTokenizer
from tests.benchmarks._pairs import cpu_seconds
from tests.benchmarks.measure import Figure, repeated

_BATCH, _BATCHES, _REPEATS = 16, 16, 5
_EPOCHS = 5  # the paper's


def against(out: Path, tokenizer: LabelTokenizer, seconds_to_label: float, *, quick: bool) -> list[Figure]:
    """Figures of a published folder. seconds_to_label: what our label path takes a pair, tokenising included."""
    try:
        from torch.utils.data import DataLoader

        from pipeline.training.collator import FigaCollator
        from pipeline.training.recipe import training_pairs
    except ImportError as error:
        return [Figure("the authors' batches / ours", None, "×", target=f"skipped: {error.name} isn't installed")]
    dataset = open_dataset(out)
    pairs = training_pairs(dataset, 4096)[0].select(range(_BATCH * (2 if quick else _BATCHES)))
    texts = dataset.to_table(["messages", "initial", "revised"]).slice(0, len(pairs)).to_pylist()
    held: list[dict[str, Any]] = []
    starting = cpu_seconds(lambda: held.extend(_tokenized(texts, tokenizer))) / len(pairs)
    loaders = (
        DataLoader(held, _BATCH, shuffle=True, collate_fn=_collate),
        DataLoader(pairs, _BATCH, shuffle=True, collate_fn=FigaCollator(0)),
    )
    shares, theirs, ours, runs = [], [], [], []
    for _ in range(1 if quick else _REPEATS):
        first, second = (cpu_seconds(partial(list, loader)) / len(pairs) for loader in loaders)
        theirs.append(1e3 * first)
        ours.append(1e3 * second)
        shares.append(first / second)
        runs.append((starting + _EPOCHS * first) / (seconds_to_label + _EPOCHS * second))
    return [
        repeated("the authors' collator, each batch anew", "ms/pair", theirs),
        repeated("ours, read from Parquet and padded", "ms/pair", ours),
        repeated("the first / the second", "×", shares),
        repeated(f"a run of {_EPOCHS} epochs: theirs / ours, labelling included", "×", runs),
    ]


def _tokenized(texts: list[dict[str, Any]], tokenizer: LabelTokenizer) -> list[dict[str, Any]]:
    import torch

    encoder, eos = tokenizer._tokenizer.backend_tokenizer, tokenizer.eos_id

    def encode(strings: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in encoder.encode_batch(strings, add_special_tokens=False)]

    rows: list[dict[str, Any]] = [{} for _ in texts]
    prompts = [tokenizer.render(text["messages"]) for text in texts]
    for side in ("revised", "initial"):
        alone = encode(prompts)
        whole = encode([f"{prompt} {text[side]}" for prompt, text in zip(prompts, texts, strict=True)])
        for row, prompt, ids in zip(rows, alone, whole, strict=True):
            row[side] = torch.tensor([*ids, eos])
            row[f"{side}_labels"] = row[side].clone()
            row[f"{side}_labels"][: len(prompt)] = -100
            row["eos"] = eos
    return rows


def _collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    revised, initial = ([row[f"{side}_labels"] for row in rows] for side in ("revised", "initial"))
    width = max(map(len, (*revised, *initial)))
    good, bad = (torch.zeros(len(rows), width) for _ in range(2))
    for number, row in enumerate(rows):
        for mask, own, taken, skipped, mark in (
            (good, revised[number], 2, "delete", 1),
            (bad, initial[number], 1, "insert", -1),
        ):
            edits = Levenshtein.editops(initial[number].tolist(), revised[number].tolist()).as_list()
            for edit in edits:
                if edit[0] != skipped:
                    mask[number][edit[taken]] = mark
            for place, token in enumerate(own):
                if token == row["eos"]:
                    mask[number][place] = 1
                    break
    ids = [row[side] for side in ("revised", "initial") for row in rows]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "labels": pad_sequence([*revised, *initial], batch_first=True, padding_value=-100),
        "mask": torch.cat([good, bad]),
    }
