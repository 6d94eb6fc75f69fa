"""The data set as a trainer takes it: columns, lengths, and the proof that its tokens are the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from pipeline.dataset.open import PairDataset
from pipeline.errors import ConfigError, RowReject, UsageError
from pipeline.labels.loading import difference, open_tokenizer, settings_of
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.training.collator import COLUMNS, SIDES

if TYPE_CHECKING:
    import datasets

_CHECKED_ROWS = 64


def training_pairs(dataset: PairDataset, max_length: int) -> tuple[datasets.Dataset, int]:
    """The columns that the collator reads, and how many pairs were left out: those with a sequence over `max_length`.

    A pair is left out whole; no sequence is cut. Raises UsageError when nothing is left.
    """
    pairs = dataset.to_datasets(COLUMNS)
    longest = _longest(pairs)
    fit = np.flatnonzero(longest <= max_length)
    if not len(fit):
        why = f"all {len(pairs)} are longer than {max_length} tokens" if len(pairs) else "the data set is empty"
        raise UsageError(f"{dataset.root}: no pair to train on: {why}")
    return (pairs if len(fit) == len(pairs) else pairs.select(fit)), len(pairs) - len(fit)


def longest_sequence(pairs: datasets.Dataset) -> int:
    """Tokens of the longest sequence."""
    return int(_longest(pairs).max())


def _longest(pairs: datasets.Dataset) -> Any:
    lengths = [pc.list_value_length(pairs.with_format("arrow")[:][f"{side}_input_ids"]).to_numpy() for side in SIDES]
    return np.maximum(*lengths)


def check_tokenizer(dataset: PairDataset, model: str) -> None:
    """Refuse a model whose tokenizer is not the labels'.

    Equal fingerprints settle it. They also differ for harmless reasons, such as another version of the library; then up to
    64 pairs, spread over the data set, are tokenised again and must give the stored ids. Raises ConfigError.
    """
    labels = dataset.manifest["labels"]
    try:
        tokenizer = open_tokenizer(model, settings_of(labels))
    except ConfigError as error:
        raise ConfigError(f"--model {model}: {error}") from None
    if difference(labels, tokenizer) is None:
        return
    table = dataset.to_table(["id", "messages", "revised", "initial", *(f"{side}_input_ids" for side in SIDES)])
    chosen = np.unique(np.linspace(0, max(table.num_rows - 1, 0), _CHECKED_ROWS, dtype=np.int64))
    for row in table.take(chosen).to_pylist() if table.num_rows else []:
        if not _same_ids(tokenizer, row):
            raise ConfigError(
                f"{dataset.root}: its labels were made with the tokenizer {labels['tokenizer']}; that of {model} gives "
                f"other tokens, first seen in pair {row['id']}. Label it anew, without a model call: "
                f"figa relabel {dataset.root} --tokenizer {model} --out NEW"
            )


def _same_ids(tokenizer: LabelTokenizer, row: dict[str, Any]) -> bool:
    try:
        answers = tokenizer.tokenize(row["messages"], *(row[side] for side in SIDES))
    except RowReject:
        return False
    return all(answer.ids == row[f"{side}_input_ids"] for side, answer in zip(SIDES, answers, strict=True))
