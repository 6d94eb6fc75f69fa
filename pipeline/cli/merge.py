"""`figa merge DIR1 DIR2 --out DIR3`: finished data sets with the same labels as one, in their order.

No model is called. A row that several of them publish is published once; the others become rejects, duplicate_id. All must
be labelled alike, by the same tokenizer: `figa relabel` brings them there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from pipeline.cli.arguments import add_json
from pipeline.storage.location import argument

INTERRUPTED = "what stood in the output folder is untouched"
EPILOG = """\
examples:
  figa merge out/hh-rlhf out/openorca --out out/both
  figa merge out/both out/alpaca --out out/both                 adds to what is there
  figa merge out/old out/better-reviser --keep last --out out/newest

exit codes: 0 done · 1 failed · 2 bad usage, or data sets that don't go together · 130 interrupted
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dirs", metavar="DIR", nargs="+", type=argument, help="output folders of finished runs")
    p.add_argument("--out", metavar="DIR", required=True, type=argument, help="folder of the merged data set")
    p.add_argument(
        "--keep", choices=("first", "last"), help="of rows with the same id, that of the first or last data set given"
    )
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import counting
    from pipeline.dataset.reader import read_manifest
    from pipeline.run.merge import merge

    out: Path = arguments.out
    total = sum(read_manifest(root)["rows"]["published"] for root in arguments.dirs)
    with counting(f"merging into {out}", total) as advance:
        made = merge(
            arguments.dirs,
            out,
            arguments.keep,
            advance=advance,
            warn=lambda line: print(f"note: {line}", file=sys.stderr),
        )
    rows, merged = made["rows"], made["lineage"][-1]
    duplicates = made["funnel"][-1]["rejected"].get("duplicate_id", 0)
    told = sys.stderr if arguments.json else sys.stdout
    for part in merged["merged"]:
        print(f"{part['path']}: {part['published']} of {part['rows']['published']} pairs", file=told)
    print(f"{rows['read']} read = {rows['published']} published + {rows['rejected']} rejected", file=told)
    if duplicates:
        print(f"duplicate ids: {duplicates}, the {merged['keep']} one is kept (see {out / 'rejected'})", file=told)
    print(f"manifest  {out / 'manifest.json'}, publication {made['publication']}", file=told)
    print(f"next      figa verify {shlex.quote(str(out))}", file=told)
    if arguments.json:
        told_of = {"rows": rows, "duplicates": duplicates, "publication": made["publication"]}
        print(json.dumps({"out": str(out), **told_of, "digest": made["digest"]}))
    return 0
