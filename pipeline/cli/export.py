"""The command line: `figa export DIR --format dpo --out DIR2`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from pipeline.cli.streams import take_any_text
from pipeline.storage.location import argument

_EPILOG = """\
formats:
  spa            the released SPA data set's five fields, JSON
  dpo            preference pairs for TRL; variants conversational (default), standard
  sft            the revisions, for imitation; variants messages (default), prompt-completion, standard
  sequences      one row a sequence: input_ids, labels, loss_weights; the token labels for any trainer
  llamafactory   ShareGPT-style preference JSON with dataset_info.json

The output's README.md says which loss the columns are for and what a trainer must not do with them.
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="figa export",
        description="Write a published data set in the format of another trainer.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("dataset", metavar="DIR", type=argument, help="output folder of a finished run")
    p.add_argument("--format", metavar="NAME", required=True, help="see below")
    p.add_argument("--variant", metavar="NAME", help="layout, where a format has several")
    p.add_argument("--out", metavar="DIR2", type=argument, required=True, help="a new folder")
    p.add_argument("--json", action="store_true", help="print the content of export.json")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    arguments = parser().parse_args(argv)
    from pipeline.cli.interrupts import exit_code_of

    return exit_code_of(lambda: _main(arguments), "the output is not complete: delete it and run again")


def _main(arguments: argparse.Namespace) -> int:
    from pipeline import exports, open_dataset
    from pipeline.cli.progress_bar import counting
    from pipeline.exports.writing import export

    format, variant = exports.get(arguments.format, arguments.variant)
    dataset = open_dataset(arguments.dataset)
    with counting(f"exporting {arguments.dataset}", len(dataset)) as advance:
        content = export(dataset, format, variant, arguments.out, advance)
    if arguments.json:
        print(json.dumps(content, ensure_ascii=False))
        return 0
    pairs = content["pairs"]
    print(f"{pairs['read']} pairs = {pairs['exported']} exported + {pairs['skipped']} skipped", end="")
    reasons = ", ".join(f"{count} {reason}" for reason, count in content["skipped"].items())
    print(f" ({reasons})" if reasons else "")
    print(f"data    {arguments.out / format.file}\nREADME  {arguments.out / 'README.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
