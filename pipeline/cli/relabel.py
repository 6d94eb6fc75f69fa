"""`figa relabel DIR --out DIR2`: new token labels from a data set's stored texts, without a model call.

Another tokenizer, granularity, signal or weights; settings that are not named stay as they were.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from pipeline.cli.arguments import add_json, add_set

INTERRUPTED = "no data set was written"
EPILOG = """\
examples:
  figa relabel out/hh-rlhf --tokenizer org/other-model --out out/hh-rlhf-other
  figa relabel out/hh-rlhf --granularity word --alpha 2 --out out/hh-rlhf-words
  figa relabel out/hh-rlhf --set labels.max_length=512 --set filter.max_distance=0.6 --out out/short

exit codes: 0 done · 1 failed · 2 bad usage, setting or input · 130 interrupted
"""
_FLAGS = ("tokenizer", "template", "granularity", "signal", "alpha", "beta", "gamma")


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", help="output folder of a finished run")
    p.add_argument("--out", metavar="DIR2", required=True, help="folder of the new data set")
    p.add_argument("--tokenizer", metavar="ID", help="folder or Hub id of the tokenizer of the model to train")
    p.add_argument("--template", help="chat, alpaca, plain")
    p.add_argument("--granularity", help="token, word, phrase")
    p.add_argument("--signal", help="levenshtein, bag_of_words, reward_weighted, constant")
    p.add_argument("--alpha", metavar="W", help="weight of good tokens")
    p.add_argument("--beta", metavar="W", help="weight of bad tokens, taken negative")
    p.add_argument("--gamma", metavar="W", help="weight of kept tokens of the revised answer")
    add_set(p, "one label setting")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import counting
    from pipeline.dataset.reader import read_manifest
    from pipeline.run.relabel import DISTANCE_SETTINGS, relabel, relabel_settings
    from pipeline.storage.location import location

    root, out = location(arguments.dir), location(arguments.out)
    parent = read_manifest(root)
    flags = {f"labels.{name}": getattr(arguments, name) for name in _FLAGS}
    config = relabel_settings(parent, arguments.set, flags)
    asked = any(text.partition("=")[0].strip() in DISTANCE_SETTINGS for text in arguments.set)
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
