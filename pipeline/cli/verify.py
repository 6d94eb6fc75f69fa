"""`figa verify DIR`: check that everything a data set's manifest says is true.

Checks files, rows and ids, and rebuilds every label from the stored texts. Works on a copy anywhere: stage files and journal
are not needed. Memory holds a batch of rows, and 8 bytes per id.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, TextIO

from pipeline.cli.arguments import add_json, add_tokenizer, count
from pipeline.text import visible

if TYPE_CHECKING:
    from pipeline.dataset.verify_files import Verification

INTERRUPTED = "nothing was changed"
EPILOG = """\
examples:
  figa verify out/hh-rlhf
  figa verify out/hh-rlhf --sample 1000 --tokenizer org/my-sft-model

exit codes: 0 all is as the manifest says · 1 something is not · 2 no data set there, or no tokenizer
"""
_SHOWN = 20


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", help="output folder of a finished run")
    p.add_argument("--sample", metavar="N", type=count, help="check the labels of N rows only")
    add_tokenizer(p)
    p.add_argument("--no-labels", action="store_true", help="skip the labels; needs no tokenizer")
    p.add_argument("--first", action="store_true", help="stop at the first problem")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
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

    for note in result.notes:
        print(f"note: {note}", file=out)
    for problem in result.problems[:_SHOWN]:
        # A message may repeat what a damaged file holds.
        print(visible(str(problem).replace("\n", " ")), file=out)
    if result.count > _SHOWN:
        print(f"... and {result.count - _SHOWN} more (--json lists up to {KEPT})", file=out)
    verdict = f"{result.count} problem{'s' * (result.count > 1)}" if result.count else "all is as the manifest says"
    print(f"{verdict}: {result.rows} rows, labels of {result.labelled} computed again and compared", file=out)
