"""The command line: `figa report DIR`. Writes report.html again from what is in the folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.cli.streams import take_any_text
from pipeline.storage.location import argument


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="figa report",
        description="Write DIR/report.html: figures, charts and a viewer of the pairs. One file, which loads nothing.",
    )
    p.add_argument("dir", metavar="DIR", type=argument, help="output folder of a finished run")
    p.add_argument(
        "--tokenizer", metavar="PATH_OR_ID", help="the labels' tokenizer, where the recorded name is of no use"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    arguments = parser().parse_args(argv)
    from pipeline.cli.interrupts import exit_code_of

    return exit_code_of(lambda: _main(arguments), "an earlier report.html is untouched")


def _main(arguments: argparse.Namespace) -> int:
    from pipeline import report
    from pipeline.cli.progress_bar import counting
    from pipeline.dataset.reader import read_manifest
    from pipeline.labels.loading import labels_tokenizer

    manifest = read_manifest(arguments.dir)
    tokenizer, note = labels_tokenizer(manifest, arguments.tokenizer)
    if note:
        print(f"note: {note}", file=sys.stderr)
    with counting(f"reading {arguments.dir}", manifest["rows"]["published"]) as advance:
        path = report.write(arguments.dir, manifest, tokenizer, note=note, advance=advance)
    print(f"report  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
