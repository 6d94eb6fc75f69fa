"""The label path against the same work done bare, and reading back against pyarrow: one core, pairs of 2 × 500 tokens.

Times are CPU time of this process, all threads on one core: that is what "a core" gives, however busy the machine. Waiting
for the disk is left out on both sides; a shard's three files cost some milliseconds of it.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rapidfuzz.distance import Levenshtein

from pipeline import schema
from pipeline.config import FilterSettings, LabelSettings
from pipeline.dataset import PairDataset, open_dataset
from pipeline.labels.tokenization import LabelTokenizer
from pipeline.stages.common import collect
from pipeline.stages.filter import tokens
from pipeline.stages.label import label
from pipeline.storage import manifest, stagefile
from pipeline.storage.publish import publish_rows
from tests.benchmarks.measure import Figure, repeated
from tests.labels.families import byte_level, fast, lines
from tests.stages.tables import row, table_for

_PAIRS, _QUICK = 20_000, 1024
_SHARD = 512
_WORDS = 320  # about 500 tokens
_TOKENS = [f"{side}_{kind}" for side in ("revised", "initial") for kind in ("input_ids", "labels", "weights")]
_READS = 3


def run(*, quick: bool) -> list[Figure]:
    pairs = _QUICK if quick else _PAIRS
    with tempfile.TemporaryDirectory() as name, _one_core():
        work = Path(name)
        tokenizer = LabelTokenizer(fast(byte_level(vocab_size=16_000)), LabelSettings(max_length=4096), "benchmark")
        ratios, alone, files = [], [], []
        for shard, rows in enumerate(_shards(pairs)):
            tokenised: list[pa.Table] = []
            first = _cpu_seconds(lambda rows=rows, out=tokenised: out.append(_tokenize(rows, tokenizer)))
            second = _cpu_seconds(partial(_label, work, shard, tokenised[0], tokenizer))
            files += stagefile.inspect_all(work, "label", shard + 1)[-1:]
            bare = _cpu_seconds(partial(_bare, work, rows, stagefile.read(files[-1]), tokenizer))
            ratios.append((first + second) / bare)
            alone.append(rows.num_rows / second)
        return [
            repeated("tokenise + label + write / the same bare", "×", ratios, "at most 1.25"),
            repeated("align + weights + write", "pairs/s", alone, "at least 5,000"),
            *_reading(_publish(work, files)),
        ]


def _tokenize(rows: pa.Table, tokenizer: LabelTokenizer) -> pa.Table:
    """What the filter stage does for the labels."""
    given = rows.select(["messages", "initial", "revised"]).to_pylist()
    results = [tokens(pair, tokenizer, FilterSettings()) | {"reward_revised": 1.0} for pair in given]
    return collect(rows, schema.FILTER, results).rows


def _label(work: Path, shard: int, filtered: pa.Table, tokenizer: LabelTokenizer) -> None:
    output = label(filtered, LabelSettings(), tokenizer.eos_id, _silent)
    stagefile.commit(work, "label", shard, "digest", output.rows, schema.REJECTED.empty_table())


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
    pq.write_table(written, work / "bare.parquet", **stagefile.options(written.schema))


def _publish(work: Path, files: list[stagefile.StageFile]) -> Path:
    out = work / "out"
    content = {"format": "figa-pipeline", "schema_version": schema.SCHEMA_VERSION, "rejected_files": []}
    manifest.write(out, content | {"files": publish_rows(out, files, 50_000, {}), "labels": {"eos_id": 1}})
    return out


def _reading(out: Path) -> list[Figure]:
    """Batches in stored and in shuffled order against pyarrow's read of the same columns, in turns."""
    pairs = open_dataset(out)
    figures = []
    # The promise is for rows of 500 tokens; those of both sides have 1,000.
    for columns, what, target in ((_TOKENS[:3], "one side", "at least 50,000"), (_TOKENS, "both sides", "")):
        bare, stored, shuffled = [], [], []
        for _ in range(_READS):
            bare.append(len(pairs) / _cpu_seconds(partial(_read_bare, pairs, columns)))
            stored.append(len(pairs) / _cpu_seconds(partial(_read, pairs, columns, shuffle=False)))
            shuffled.append(len(pairs) / _cpu_seconds(partial(_read, pairs, columns, shuffle=True)))
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


def _shards(pairs: int) -> Iterator[pa.Table]:
    """Tables for the filter stage: English sentences of the bundled sample, every eighth word or so edited."""
    draw = random.Random(0)
    words = [word for line in lines() for word in line.split(" ") if word]
    for first in range(0, pairs, _SHARD):
        rows = []
        for number in range(first, min(first + _SHARD, pairs)):
            # A few words that the vocabulary doesn't have, as names and numbers are in real text.
            initial = [
                draw.choice(words) if draw.random() < 0.97 else f"{draw.getrandbits(24):x}" for _ in range(_WORDS)
            ]
            edited = (_edit(word, draw, words) for word in initial)
            rows.append(row(number, initial=" ".join(initial), revised=" ".join(word for word in edited if word)))
        yield table_for("filter", rows)


def _edit(word: str, draw: random.Random, words: list[str]) -> str:
    place = draw.random()
    if place < 0.04:
        return ""
    if place < 0.08:
        return draw.choice(words)
    return f"{word} {draw.choice(words)}" if place < 0.12 else word


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@contextmanager
def _one_core() -> Iterator[None]:
    """All threads of this process on one core, Arrow's pools one thread wide."""
    cores, threads, io_threads = os.sched_getaffinity(0), pa.cpu_count(), pa.io_thread_count()
    os.sched_setaffinity(0, {min(cores)})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        pa.set_cpu_count(threads)
        pa.set_io_thread_count(io_threads)


def _silent(done: int, rejected: int) -> None: ...
