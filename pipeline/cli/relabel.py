"""The command line: `figa relabel DIR --tokenizer ID --out DIR2`. New token labels from stored texts."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cli.streams import take_any_text

if TYPE_CHECKING:
    from pipeline.config.settings import CurationConfig

_EPILOG = """\
examples:
  figa relabel out/hh-rlhf --tokenizer org/other-model --out out/hh-rlhf-other
  figa relabel out/hh-rlhf --granularity word --alpha 2 --out out/hh-rlhf-words
  figa relabel out/hh-rlhf --set labels.max_length=512 --set filter.max_distance=0.6 --out out/short

exit codes: 0 done · 1 failed · 2 bad usage, setting or input · 130 interrupted
"""
_FLAGS = ("tokenizer", "template", "granularity", "signal", "alpha", "beta", "gamma")
# Distance limits hold again only where they are given: the pairs passed them when the data set was made.
_DISTANCE = ("filter.min_distance", "filter.max_distance")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="figa relabel",
        description="Label a data set's texts anew, with another tokenizer, granularity, signal or weights, as a data set "
        "of its own. What is not given stays as it was. No model is asked.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("dir", metavar="DIR", help="output folder of a finished run")
    p.add_argument("--out", metavar="DIR2", required=True, help="folder of the new data set")
    p.add_argument("--tokenizer", metavar="ID", help="folder or Hub id of the tokenizer of the model to train")
    p.add_argument("--template", help="chat, alpaca, plain")
    p.add_argument("--granularity", help="token, word, phrase")
    p.add_argument("--signal", help="levenshtein, bag_of_words, reward_weighted, constant")
    p.add_argument("--alpha", metavar="W", help="weight of good tokens")
    p.add_argument("--beta", metavar="W", help="weight of bad tokens, taken negative")
    p.add_argument("--gamma", metavar="W", help="weight of kept tokens of the revised answer")
    p.add_argument("--set", metavar="labels.x=value", action="append", default=[], help="one label setting; repeatable")
    p.add_argument("--json", action="store_true", help="print one JSON object at the end, all else to stderr")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    arguments = parser().parse_args(argv)
    from pipeline.cli.interrupts import exit_code_of

    return exit_code_of(lambda: _main(arguments), "no data set was written")


def _main(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import counting
    from pipeline.dataset.reader import read_manifest
    from pipeline.run.relabel import relabel
    from pipeline.storage.location import location

    root, out = location(arguments.dir), location(arguments.out)
    parent = read_manifest(root)
    flags = {f"labels.{name}": getattr(arguments, name) for name in _FLAGS}
    config = settings(parent, arguments.set, flags)
    asked = any(text.partition("=")[0].strip() in _DISTANCE for text in arguments.set)
    with counting(f"labelling {root}", parent["rows"]["published"]) as advance:
        made = relabel(
            root,
            out,
            config.labels,
            config.filter if asked else None,
            advance=advance,
            warn=lambda line: print(f"note: {line}", file=sys.stderr),
        )
    rows, reasons = made["rows"], made["funnel"][0]["rejected"]
    lost = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    told = sys.stderr if arguments.json else sys.stdout
    print(f"{rows['read']} read = {rows['published']} published + {rows['rejected']} rejected", file=told)
    if lost:
        print(f"rejected: {lost} (texts and evidence in {out / 'rejected'})", file=told)
    if not rows["published"]:
        print("note: no pair survived: the data set is valid and empty", file=sys.stderr)
    print(f"manifest  {out / 'manifest.json'}\nnext      figa verify {shlex.quote(str(out))}", file=told)
    if arguments.json:
        print(json.dumps({"out": str(out), "rows": rows, "rejected": reasons, "digest": made["digest"]}))
    return 0


def settings(parent: dict[str, Any], assignments: Sequence[str], flags: dict[str, Any]) -> CurationConfig:
    """The parent's label settings, changed by `--set` and by flags. Raises ConfigError."""
    from pipeline.config.loading import load_config
    from pipeline.errors import ConfigError
    from pipeline.labels.description import settings_of

    for text in assignments:
        key = text.partition("=")[0].strip()
        if not key.startswith("labels.") and key not in _DISTANCE:
            raise ConfigError(
                f"--set {key}: relabelling changes labels.* only, and the gate by {' and '.join(_DISTANCE)}; for the rest "
                "run figa build"
            )
    kept = settings_of(parent["labels"]).data_settings()
    if flags.get("labels.tokenizer"):
        # Options of a chat template are that template's own.
        kept["template_options"] = {}
    before = {name: value for name, value in kept.items() if name != "system"}
    config = load_config(None, [*assignments], flags, base={"labels": before})
    # The recorded system prompt is the one that was used: none stays none.
    system = kept["system"] if config.labels.system is None else config.labels.system
    labels = config.labels.model_copy(update={"system": system or None})
    if labels.tokenizer == "policy":
        labels = labels.model_copy(update={"tokenizer": parent["labels"]["tokenizer"]})
    return config.model_copy(update={"labels": labels})


if __name__ == "__main__":
    sys.exit(main())
