"""From a JSONL file to planned shards, and near-duplicate removal beside the bare library: one core, a process each."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.measure import Figure, child, peak_mb

_ROWS, _NEAR_ROWS, _QUICK = 1_000_000, 200_000, 20_000
_REPEATS = 0.02  # of the rows, exactly
_SIMILAR = 0.05


def run(*, quick: bool) -> list[Figure]:
    rows, near = (_QUICK, _QUICK) if quick else (_ROWS, _NEAR_ROWS)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "rows.jsonl")
        made = _write(path, rows)
        figures = [
            Figure("rows", rows, f"rows, {path.stat().st_size / 1e6:.0f} MB"),
            *_plan(path, name, rows, made),
        ]
        _write(path, near)
        return [*figures, *_near(path, name, near)]


def _plan(path: Path, work: str, rows: int, repeated: int) -> list[Figure]:
    bare, plan = _child("bare", path, work), _child("plan", path, work)
    if plan["rejected"] != repeated:
        raise SystemExit(f"{repeated} rows repeat another, {plan['rejected']} were rejected")
    return [
        Figure("bare json.loads of every line", rows / bare["cpu"], "rows/s of CPU"),
        Figure("parsed, deduplicated, planned", rows / plan["cpu"], "rows/s of CPU", target="≥ 30,000 on one core"),
        Figure("the same, on the clock", rows / plan["wall"], "rows/s"),
        Figure("time, of the bare one", plan["cpu"] / bare["cpu"], "×"),
        Figure("shards", plan["shards"], ""),
        Figure("peak memory", plan["peak_mb"], "MB", target="< 600"),
    ]


def _near(path: Path, work: str, rows: int) -> list[Figure]:
    library, ours, plan = (_child(what, path, work) for what in ("rensa", "near", "near-plan"))
    return [
        Figure("near duplicates: bare rensa, words given", rows / library["cpu"], "rows/s of CPU"),
        Figure("near duplicates: ours, from text", rows / ours["cpu"], "rows/s of CPU"),
        Figure("ours, of bare time", ours["cpu"] / library["cpu"], "×"),
        Figure("planned with near_duplicates=0.8", rows / plan["cpu"], "rows/s of CPU"),
        Figure("rows rejected by it", plan["rejected"], "rows"),
        Figure("peak memory of that", plan["peak_mb"], "MB", target="< 3000 at 200,000 rows"),
    ]


def _write(path: Path, rows: int) -> int:
    """Questions and answers of random words, some of them repeated or nearly so; how many repeat one exactly."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    earlier: list[str] = []
    repeated = 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            draw = rng.random()
            prompt = f"{number} {' '.join(rng.choices(words, k=rng.randint(12, 40)))}?"
            if earlier and draw < _REPEATS + _SIMILAR:
                prompt = rng.choice(earlier)
                repeated += draw < _REPEATS
                prompt += "" if draw < _REPEATS else f" {number}"
            elif len(earlier) < 1000:
                earlier.append(prompt)
            response = " ".join(rng.choices(words, k=rng.randint(20, 60)))
            file.write(json.dumps({"prompt": prompt, "response": response}) + "\n")
    return repeated


def _child(what: str, path: Path, work: str) -> dict[str, float]:
    result: dict[str, float] = json.loads(
        child("tests.benchmarks.sources", what, str(path), work).stdout.splitlines()[-1]
    )
    return result


# Below: what the children do.


def _bare(path: Path, work: str) -> dict[str, float]:
    with path.open("rb") as file:
        return {"rows": sum(1 for line in file if json.loads(line))}


def _planned(path: Path, work: str, **settings: float) -> dict[str, float]:
    from pipeline import sources
    from pipeline.config.loading import load_config
    from pipeline.run.plan import plan_shards
    from pipeline.storage import stage_files

    flags = {"source.name": "jsonl", "source.input": str(path), **{f"source.{k}": v for k, v in settings.items()}}
    config = load_config(flags=flags)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        source = sources.resolve_source(config.source, lambda message: None)
        adapters = sources.open_adapters(config.source, source, lambda message: None)
        plan = plan_shards(config, source, adapters, Path(folder), lambda message: None)
        rejected = sum(file.rejected for file in stage_files.inspect_all(Path(folder), "source", plan.shards))
    return {"shards": plan.shards, "rejected": rejected}


def _near_plan(path: Path, work: str) -> dict[str, float]:
    return _planned(path, work, near_duplicates=0.8)


def _texts(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)["prompt"]


def _near_ours(path: Path, work: str) -> dict[str, float]:
    from pipeline.sources.checks.near_duplicates import NearDuplicates

    texts = list(_texts(path))
    start = time.process_time()
    index = NearDuplicates(0.8)
    for number, text in enumerate(texts):
        signature = index.signature(text)
        if index.first(signature) is None:
            index.keep(str(number), signature)
    return {"cpu": time.process_time() - start}


def _rensa(path: Path, work: str) -> dict[str, float]:
    from rensa import RMinHash, RMinHashLSH

    from pipeline.sources.checks.common import ngrams, words
    from pipeline.sources.checks.near_duplicates import HASHES, WORDS, bands

    sets = [ngrams(words(text), WORDS) for text in _texts(path)]
    start = time.process_time()
    index = RMinHashLSH(0.8, HASHES, bands(0.8))
    kept: dict[int, RMinHash] = {}
    for number, tokens in enumerate(sets):
        signature = RMinHash(HASHES, 0)
        signature.update(tokens)
        if not any(signature.jaccard(kept[other]) >= 0.8 for other in index.query(signature)):
            index.insert(number, signature)
            kept[number] = signature
    return {"cpu": time.process_time() - start}


_WORK: dict[str, Callable[[Path, str], dict[str, float]]] = {
    "bare": _bare,
    "plan": _planned,
    "near": _near_ours,
    "rensa": _rensa,
    "near-plan": _near_plan,
}


def main() -> None:
    what, path, work = sys.argv[1:]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    start, cpu = time.perf_counter(), time.process_time()
    result = _WORK[what](Path(path), work)
    times = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    print(json.dumps({**times, **result, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
