"""The data set as a trainer takes it: columns, lengths, and the check that its tokens are the model's."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from pipeline.dataset.open import PairDataset
from pipeline.errors import ConfigError, UsageError
from pipeline.labels.loading import difference, open_tokenizer, settings_of
from pipeline.training.collator import COLUMNS, SIDES

if TYPE_CHECKING:
    import datasets

_CHECKED_ROWS = 64


def training_pairs(dataset: PairDataset, max_length: int) -> "tuple[datasets.Dataset, int]":
    """The columns that the collator reads, and how many pairs are left out: those with a sequence over `max_length` tokens.

    A pair is left out whole; no sequence is cut. Raises UsageError when nothing is left.
    """
    pairs = dataset.to_datasets(COLUMNS)
    fit = np.flatnonzero(lengths(pairs) <= max_length)
    if not len(fit):
        why = f"all {len(pairs)} are longer than {max_length} tokens" if len(pairs) else "the data set is empty"
        raise UsageError(f"{dataset.root}: no pair to train on: {why}")
    return (pairs if len(fit) == len(pairs) else pairs.select(fit)), len(pairs) - len(fit)


def lengths(pairs: "datasets.Dataset") -> Any:
    """Tokens of each pair's longer sequence, int32 of shape (pairs,)."""
    table = pairs.with_format("arrow")[:]
    return np.maximum(*(pc.list_value_length(table[f"{side}_input_ids"]).to_numpy() for side in SIDES))


def check_tokenizer(dataset: PairDataset, model: str) -> None:
    """Raise ConfigError for a model whose tokenizer is not the labels'.

    Equal fingerprints settle it. They also differ for harmless reasons, such as another version of the library; then up to
    64 pairs, spread over the data set, are tokenised again and must give the stored ids.
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
        if not tokenizer.tokenize_published(row):
            raise ConfigError(
                f"{dataset.root}: its labels are for the tokenizer {labels['tokenizer']}; that of {model} gives other "
                f"tokens, first seen in pair {row['id']}. Relabel it, which calls no model: "
                f"figa relabel {dataset.root} --tokenizer {model} --out NEW"
            )
