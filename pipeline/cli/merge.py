"""`figa merge DIR1 DIR2 --out DIR3`: finished data sets with the same labels as one, in their order.

No model is called. A row that several of them publish is published once; the others become rejects, duplicate_id. All must
have the same label settings and tokenizer: `figa relabel` changes these.
"""

import argparse
import shlex
from pathlib import Path

from pipeline.cli.arguments import existing_folder, folder
from pipeline.cli.console import note, print_values, progress_bar

INTERRUPTED = "what stood in the output folder is untouched"
EXAMPLES = (
    "figa merge out/hh-rlhf out/openorca --out out/both",
    "figa merge out/both out/alpaca --out out/both                 adds to what is there",
    "figa merge out/old out/better-reviser --keep last --out out/newest",
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dirs", metavar="DIR", nargs="+", type=existing_folder, help="output folders of finished runs")
    p.add_argument("--out", metavar="DIR", required=True, type=folder, help="folder of the merged data set")
    p.add_argument("--keep", choices=("first", "last"), help="which of several rows with the same id; default first")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.dataset.facts import headline
    from pipeline.dataset.reader import read_manifest
    from pipeline.run.merge import merge

    out: Path = arguments.out
    total = sum(read_manifest(root)["rows"]["published"] for root in arguments.dirs)
    with progress_bar(f"merging into {out}", total) as advance:
        manifest = merge(arguments.dirs, out, arguments.keep, advance=advance, warn=note)
    merged = manifest["lineage"][-1]
    duplicates = manifest["funnel"][-1]["rejected"].get("duplicate_id", 0)
    for part in merged["merged"]:
        print(f"{part['path']}: {part['published']} of {part['rows']['published']} pairs")
    print(headline(manifest))
    if duplicates:
        print(f"duplicate ids: {duplicates}, the {merged['keep']} one is kept (see {out / 'rejected'})")
    print_values(manifest=f"{out / 'manifest.json'}, publication {manifest['publication']}")
    print_values(next=f"figa verify {shlex.quote(str(out))}")
    result = {name: manifest[name] for name in ("rows", "publication", "digest")}
    return 0, {"out": str(out), "duplicates": duplicates, **result}
