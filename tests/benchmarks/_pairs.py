"""Synthetic pairs of 2 × 500 tokens for the suites that label, store and read them; and the clock of one core."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from pipeline import schema
from pipeline.config.settings import FilterSettings, LabelSettings
from pipeline.dataset import manifest
from pipeline.dataset.writer import publish_rows
from pipeline.labels.columns import tokenize_pair
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.stages.label import label
from pipeline.storage import stage_files
from pipeline.storage.stage_files import collect
from tests.labels.families import byte_level, fast, lines
from tests.stages.tables import row, table_for

SHARD = 512
_WORDS = 320  # about 500 tokens


def tokenizer() -> LabelTokenizer:
    return LabelTokenizer(fast(byte_level(vocab_size=16_000)), LabelSettings(max_length=4096), "benchmark")


def shards(pairs: int) -> Iterator[pa.Table]:
    """Tables for the filter stage: English sentences of the bundled sample, every eighth word or so edited."""
    draw = random.Random(0)
    words = [word for line in lines() for word in line.split(" ") if word]
    for first in range(0, pairs, SHARD):
        rows = []
        for number in range(first, min(first + SHARD, pairs)):
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


def tokenized(rows: pa.Table, own: LabelTokenizer) -> pa.Table:
    """What the filter stage does for the labels."""
    given = rows.select(["messages", "initial", "revised"]).to_pylist()
    results = [tokenize_pair(pair, own, FilterSettings()) | {"reward_revised": 1.0} for pair in given]
    return collect(rows, schema.FILTER, results).rows


def labelled(filtered: pa.Table, own: LabelTokenizer) -> pa.Table:
    return label(filtered, LabelSettings(), own.eos_id, _silent).rows


def commit(work: Path, shard: int, rows: pa.Table) -> stage_files.StageFile:
    return stage_files.commit(work, "label", shard, "digest", rows, schema.REJECTED.empty_table())


def publish(out: Path, files: list[stage_files.StageFile]) -> Path:
    content = {"format": "figa-pipeline", "schema_version": schema.SCHEMA_VERSION, "rejected_files": []}
    manifest.write(out, content | {"files": publish_rows(out, files, 50_000, {}), "labels": {"eos_id": 1}})
    return out


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@contextmanager
def one_core() -> Iterator[None]:
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
