"""The label path against the same work done bare and against labels made at each batch; reading back against pyarrow.

One core, pairs of 2 × 500 tokens. Times are CPU time of this process, all threads on one core: that is what "a core" gives,
however busy the machine. Waiting for the disk is left out on both sides; a shard's three files cost some milliseconds of it.

What the paper's trainer does is in `_authors`: it tokenises when it starts and aligns in the collator, each epoch again.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rapidfuzz.distance import Levenshtein

from pipeline.dataset.open import PairDataset, open_dataset
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.storage import stage_files
from tests.benchmarks import _authors, _pairs
from tests.benchmarks._pairs import cpu_seconds
from tests.benchmarks.measure import Figure, repeated

_PAIRS, _QUICK = 20_000, 256
_TOKENS = [f"{side}_{kind}" for side in ("revised", "initial") for kind in ("input_ids", "labels", "weights")]
_READS = 5


def run(*, quick: bool) -> list[Figure]:
    pairs = _QUICK if quick else _PAIRS
    with tempfile.TemporaryDirectory() as name, _pairs.one_core():
        work = Path(name)
        tokenizer = _pairs.tokenizer()
        ratios, alone, made, files = [], [], [], []
        for shard, rows in enumerate(_pairs.shards(pairs)):
            tokenised: list[pa.Table] = []
            first = cpu_seconds(partial(_tokenize, rows, tokenizer, tokenised))
            second = cpu_seconds(partial(_label, work, shard, tokenised[0], tokenizer))
            files += stage_files.inspect_all(work, "label", shard + 1)[-1:]
            bare = cpu_seconds(partial(_bare, work, rows, stage_files.read(files[-1]), tokenizer))
            ratios.append((first + second) / bare)
            made.append((first + second) / rows.num_rows)
            alone.append(rows.num_rows / second)
        out = _pairs.publish(work / "out", files)
        return [
            repeated("tokenise + label + write / the same bare", "×", ratios, "at most 1.25"),
            repeated("align + weights + write", "pairs/s", alone, "at least 5,000"),
            *_authors.against(out, tokenizer, sorted(made)[len(made) // 2], quick=quick),
            *_reading(out),
        ]


def _tokenize(rows: pa.Table, tokenizer: LabelTokenizer, into: list[pa.Table]) -> None:
    into.append(_pairs.tokenized(rows, tokenizer))


def _label(work: Path, shard: int, filtered: pa.Table, tokenizer: LabelTokenizer) -> None:
    _pairs.commit(work, shard, _pairs.labelled(filtered, tokenizer))


def _bare(work: Path, rows: pa.Table, written: pa.Table, tokenizer: LabelTokenizer) -> None:
    """The least that gives the same: each text encoded once, the edits found, the finished columns written."""
    encoder = tokenizer._tokenizer.backend_tokenizer
    texts = []
    for given in rows.select(["messages", "initial", "revised"]).to_pylist():
        prompt = tokenizer.render(given["messages"])
        texts += [prompt + given["initial"], prompt + given["revised"]]
    ids = [encoding.ids for encoding in encoder.encode_batch(texts, add_special_tokens=False)]
    for initial, revised in zip(ids[::2], ids[1::2], strict=True):
        Levenshtein.editops(initial, revised)
    with pa.ipc.new_file(
        work / "bare.arrow", written.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
    ) as file:
        file.write_table(written)


def _reading(out: Path) -> list[Figure]:
    """Batches in stored and in shuffled order against pyarrow's read of the same columns, in turns."""
    pairs = open_dataset(out)
    figures = []
    # The promise is for rows of 500 tokens; those of both sides have 1,000.
    for columns, what, target in ((_TOKENS[:3], "one side", "at least 50,000"), (_TOKENS, "both sides", "")):
        bare, stored, shuffled = [], [], []
        for _ in range(_READS):
            bare.append(len(pairs) / cpu_seconds(partial(_read_bare, pairs, columns)))
            stored.append(len(pairs) / cpu_seconds(partial(_read, pairs, columns, shuffle=False)))
            shuffled.append(len(pairs) / cpu_seconds(partial(_read, pairs, columns, shuffle=True)))
        for name, speeds in (("stored", stored), ("shuffled", shuffled)):
            shares = [ours / limit for ours, limit in zip(speeds, bare, strict=True)]
            figures += [
                repeated(f"batches, {what}, {name} order", "rows/s", speeds, target),
                repeated(f"batches, {what}, {name} order / pyarrow", "×", shares, "at least 0.7"),
            ]
        figures.append(repeated(f"pyarrow, {what}", "rows/s", bare))
    return figures


def _read(pairs: PairDataset, columns: list[str], *, shuffle: bool) -> None:
    for _ in pairs.iter_batches(64, columns=columns, shuffle=shuffle):
        pass


def _read_bare(pairs: PairDataset, columns: list[str]) -> None:
    for file in pairs.files:
        for _ in pq.ParquetFile(file.path).iter_batches(64, columns=columns):
            pass
