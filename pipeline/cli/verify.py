"""The command line: `figa verify DIR`. Whether everything that a data set's manifest says is true."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from pipeline.cli.arguments import count
from pipeline.cli.streams import take_any_text

if TYPE_CHECKING:
    from pipeline.dataset.verify_files import Verification

_EPILOG = """\
examples:
  figa verify out/hh-rlhf
  figa verify out/hh-rlhf --sample 1000 --tokenizer org/my-sft-model

exit codes: 0 all is as the manifest says · 1 something is not · 2 no data set there, or no tokenizer
"""
_SHOWN = 20


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="figa verify",
        description="Check that everything a data set's manifest says is true: files, rows, ids, and every label, "
        "computed again from the stored texts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("dir", metavar="DIR", help="output folder of a finished run")
    p.add_argument("--sample", metavar="N", type=count, help="check the labels of N rows only")
    p.add_argument(
        "--tokenizer", metavar="PATH_OR_ID", help="the labels' tokenizer, where the recorded name is of no use"
    )
    p.add_argument("--no-labels", action="store_true", help="skip the labels; needs no tokenizer")
    p.add_argument("--first", action="store_true", help="stop at the first problem")
    p.add_argument("--json", action="store_true", help="print one JSON object, all else to stderr")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    arguments = parser().parse_args(argv)
    from pipeline.cli.interrupts import exit_code_of

    return exit_code_of(lambda: _main(arguments), "nothing was changed")


def _main(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import counting
    from pipeline.dataset.verify import verify

    result = verify(
        arguments.dir,
        sample=arguments.sample,
        tokenizer=arguments.tokenizer,
        labels=not arguments.no_labels,
        first=arguments.first,
        progress=counting,
    )
    _print(result, sys.stderr if arguments.json else sys.stdout)
    if arguments.json:
        print(json.dumps(result.as_dict(), ensure_ascii=False))
    return 1 if result.count else 0


def _print(result: Verification, out: TextIO) -> None:
    from pipeline.dataset.verify import KEPT
    from pipeline.report.diffs import visible

    for note in result.notes:
        print(f"note: {note}", file=out)
    for problem in result.problems[:_SHOWN]:
        # A message may repeat what a damaged file holds.
        print(visible(str(problem).replace("\n", " ")), file=out)
    if result.count > _SHOWN:
        print(f"... and {result.count - _SHOWN} more (--json lists up to {KEPT})", file=out)
    verdict = f"{result.count} problem{'s' * (result.count > 1)}" if result.count else "all is as the manifest says"
    print(f"{verdict}: {result.rows} rows, labels of {result.labelled} computed again and compared", file=out)


if __name__ == "__main__":
    sys.exit(main())
