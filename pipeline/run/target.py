"""Runs with `source.target`: the source is planned in steps, until enough pairs came out or it ends.

A step ends with a whole shard, and its size follows from how many pairs came out so far, so it is the same in every run. The
first step alone determines thresholds that are quantiles: they stay as they are, however far the run reads on.
"""

from pathlib import Path

from pipeline.config.settings import CurationConfig
from pipeline.run import plan
from pipeline.storage import stage_files

FIRST_ROWS = 64
_MOST_GROWTH = 4


def first_step(config: CurationConfig) -> int | None:
    """The rows to plan first; None for a run without a target."""
    return _whole_shards(config, FIRST_ROWS) if config.source.target else None


def next_step(config: CurationConfig, work: Path, shards: int, rows: int | None) -> int | None:
    """The rows to plan after the first `rows`, which are `shards` shards; None when no more are needed."""
    pairs = sum(file.rows for file in stage_files.inspect_all(work, "label", shards))
    if rows is None or config.source.target is None or pairs >= config.source.target:
        return None
    needed = rows * config.source.target // pairs + 1 if pairs else rows * _MOST_GROWTH
    return _whole_shards(config, min(max(needed, rows + 1), rows * _MOST_GROWTH))


def _whole_shards(config: CurationConfig, rows: int) -> int:
    """The least number of rows of whole shards that is not below `rows`."""
    total = 0
    for size in plan.shard_sizes(config):
        total += size
        if total >= rows:
            break
    return total
