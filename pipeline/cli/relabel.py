"""`figa relabel DIR --out DIR2`: new token labels from a data set's stored texts, without a model call.

Another tokenizer, granularity, signal or weights; settings that are not named stay as they were.
"""

import argparse
import shlex

from pipeline.cli.arguments import add_dir, add_set, folder
from pipeline.cli.console import note, print_values, progress_bar

INTERRUPTED = "no data set was written"
EXAMPLES = (
    "figa relabel out/hh-rlhf --tokenizer org/other-model --out out/hh-rlhf-other",
    "figa relabel out/hh-rlhf --granularity word --alpha 2 --out out/hh-rlhf-words",
    "figa relabel out/hh-rlhf --set labels.max_length=512 --set filter.max_distance=0.6 --out out/short",
)
_FLAGS = ("tokenizer", "template", "granularity", "signal", "alpha", "beta", "gamma")


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p)
    p.add_argument("--out", metavar="DIR2", type=folder, required=True, help="folder of the new data set")
    p.add_argument("--tokenizer", metavar="ID", help="folder or Hub id of the tokenizer of the model to train")
    p.add_argument("--template", help="chat, alpaca, plain")
    p.add_argument("--granularity", help="token, word, phrase")
    p.add_argument("--signal", help="levenshtein, bag_of_words, reward_weighted, constant")
    p.add_argument("--alpha", metavar="W", help="weight of good tokens")
    p.add_argument("--beta", metavar="W", help="weight of bad tokens, taken negative")
    p.add_argument("--gamma", metavar="W", help="weight of kept tokens of the revised answer")
    add_set(p, "one label setting")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.dataset import facts
    from pipeline.dataset.reader import read_manifest
    from pipeline.run.relabel import DISTANCE_SETTINGS, relabel, relabel_settings

    root, out = arguments.dir, arguments.out
    parent = read_manifest(root)
    flags = {f"labels.{name}": getattr(arguments, name) for name in _FLAGS}
    config = relabel_settings(parent, arguments.set, flags)
    filters = any(text.partition("=")[0].strip() in DISTANCE_SETTINGS for text in arguments.set)
    with progress_bar(f"labelling {root}", parent["rows"]["published"]) as advance:
        manifest = relabel(root, out, config.labels, config.filter if filters else None, advance=advance, warn=note)
    rows, reasons = manifest["rows"], manifest["funnel"][0]["rejected"]
    print(facts.headline(manifest))
    if reasons:
        print(f"rejected: {facts.counts(reasons)} (texts and evidence in {out / 'rejected'})")
    if not rows["published"]:
        note("no pair survived: the data set is valid and empty")
    print_values(manifest=out / "manifest.json", next=f"figa verify {shlex.quote(str(out))}")
    return 0, {"out": str(out), "rows": rows, "rejected": reasons, "digest": manifest["digest"]}
