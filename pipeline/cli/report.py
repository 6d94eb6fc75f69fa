"""`figa report DIR`: write DIR/report.html again: figures, charts and a viewer of the pairs.

One file, which loads nothing.
"""

from __future__ import annotations

import argparse
import json
import sys

from pipeline.cli.arguments import add_json, add_tokenizer
from pipeline.storage.location import argument

INTERRUPTED = "an earlier report.html is untouched"
EPILOG = """\
example:
  figa report out/hh-rlhf
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", type=argument, help="output folder of a finished run")
    add_tokenizer(p)
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import counting
    from pipeline.dataset.reader import read_manifest
    from pipeline.labels.loading import labels_tokenizer
    from pipeline.report.page import write_report

    manifest = read_manifest(arguments.dir)
    tokenizer, note = labels_tokenizer(manifest, arguments.tokenizer)
    if note:
        print(f"note: {note}", file=sys.stderr)
    with counting(f"reading {arguments.dir}", manifest["rows"]["published"]) as advance:
        path = write_report(arguments.dir, manifest, tokenizer, note=note, advance=advance)
    print(json.dumps({"report": str(path)}) if arguments.json else f"report  {path}")
    return 0
