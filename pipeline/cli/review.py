"""`figa review DIR --decisions FILE --out DIR2`: what people kept, dropped or edited, as a data set. No model is called.

In report.html press k to keep a pair, d to drop it, e to edit its revision, then save the decisions as a file. Dropped pairs
become rejects, edited ones are filtered and labelled again. Two files without --out: how far the two readers agree.
--export label-studio writes tasks to import there; --decisions takes its JSON export.
"""

import argparse
import shlex
from pathlib import Path

from pipeline.cli.arguments import add_dir, folder
from pipeline.cli.console import note, print_values, progress_bar
from pipeline.errors import UsageError
from pipeline.text import visible

INTERRUPTED = "no data set was written"
EXAMPLES = (
    "figa review out/demo --decisions decisions.json --out out/reviewed",
    "figa review out/demo --decisions ann.json --decisions ben.json",
    "figa review out/demo --export label-studio --out tasks",
)
_LISTED = 10


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p)
    p.add_argument("--decisions", metavar="FILE", type=Path, action="append", default=[], help="as saved in the report")
    p.add_argument("--out", metavar="DIR2", type=folder, help="folder of the reviewed data set, or of the tasks")
    p.add_argument("--export", choices=["label-studio"], help="write tasks in place of a data set")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.dataset.facts import headline
    from pipeline.dataset.reader import read_manifest
    from pipeline.exports.writing import check_free
    from pipeline.run.review import agreement, check_fits, export_tasks, load, review

    root, out, files = arguments.dir, arguments.out, arguments.decisions
    if arguments.export and out and not files:
        check_free(out, root)
        tasks = export_tasks(root, out)
        print_values(tasks=f"{out / 'tasks.json'}, {tasks} pairs", labels=out / "labels.xml")
        return 0, {"tasks": tasks, "out": str(out)}
    parent = read_manifest(root)
    read = [load(file) for file in files]
    for one in read:
        check_fits(root, parent, one)
    if len(read) == 2 and not out:
        result = agreement(*read)
        kappa = "unknown: one answer is all there is" if result["kappa"] is None else f"{result['kappa']:.2f}"
        print(f"{result['pairs']} pairs decided by both, {result['agreement']:.0%} alike, Cohen's kappa {kappa}")
        for pair, count in result["table"].items():
            print(f"  {pair:<11} {count}")
        if differ := result["differ"]:
            print(f"differ: {', '.join(map(visible, differ[:_LISTED]))}{' …' if len(differ) > _LISTED else ''}")
        return 0, result
    if len(read) != 1 or not out or arguments.export:
        raise UsageError(f"name one --decisions and --out, two --decisions, or --export and --out; {EXAMPLES[0]}")
    with progress_bar(f"reviewing {root}", parent["rows"]["published"]) as advance:
        manifest = review(root, out, read[0], advance=advance, warn=note)
    counted = manifest["review"]
    print(", ".join(f"{counted[name]} {name}" for name in ("keep", "drop", "edit", "undecided")))
    print(headline(manifest))
    print_values(manifest=out / "manifest.json", next=f"figa verify {shlex.quote(str(out))}")
    return 0, {"out": str(out), "rows": manifest["rows"], "review": counted, "digest": manifest["digest"]}
