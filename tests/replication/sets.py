"""The data sets of the experiment, all made by the project's own commands: one run, and what can be had from it for nothing.

set              curation.yaml's run: rows 0 to `limit` of the source
ungated          the same answers and revisions without the reward-gain gate: only filter and label run again
no-negative, bag-of-words, word, phrase     `set` labelled anew
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.cli.main import main

CURATION = Path(__file__).with_name("curation.yaml")
NO_GAIN = -1e9
RELABELLED = {
    "no-negative": ("--beta", "0"),
    "bag-of-words": ("--signal", "bag_of_words"),
    "word": ("--granularity", "word"),
    "phrase": ("--granularity", "phrase"),
}


def make(folder: Path, source_input: str | None, limit: int) -> dict[str, Path]:
    """All sets by name. What is there already is kept, so a killed run goes on where it was."""
    made = there(folder)
    _build(made["set"], source_input, limit)
    _ungated(made["set"], made["ungated"], source_input, limit)
    relabelled(made["set"], folder)
    return made


def there(folder: Path) -> dict[str, Path]:
    """The sets by name, without making any."""
    return {name: folder / name for name in ("set", "ungated", *RELABELLED)}


def relabelled(made: Path, folder: Path) -> dict[str, Path]:
    for name, flags in RELABELLED.items():
        _succeed(main(["relabel", str(made), "--out", str(folder / name), *flags]), name)
    return {name: folder / name for name in RELABELLED}


def _build(out: Path, source_input: str | None, limit: int, *more: str) -> None:
    where = ["--input", source_input] if source_input else []
    arguments = ["--source", "hh-rlhf", *where, "--limit", str(limit), "--out", str(out), "--config", str(CURATION)]
    _succeed(main(["build", *arguments, "--require-full-source", "--prefect", "off", *more]), str(out))


def _ungated(made: Path, out: Path, source_input: str | None, limit: int) -> None:
    """A copy of the run's folder has its stage files and its journal, so no model is asked."""
    if not out.exists():
        fresh = out.with_name(f"{out.name}.copying")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(made, fresh)
        fresh.rename(out)
    _build(out, source_input, limit, "--set", f"filter.min_reward_gain={NO_GAIN}")


def _succeed(code: int, what: str) -> None:
    if code:
        raise SystemExit(f"making {what} ended with exit code {code}; the same command goes on")
