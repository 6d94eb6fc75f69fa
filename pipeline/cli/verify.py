"""`figa verify DIR`: check that everything a data set's manifest says is true.

Checks files, rows and ids, and rebuilds every label from the stored texts. Works on a copy anywhere: stage files and journal
are not needed. Memory holds a batch of rows, and 8 bytes per id.
"""

import argparse

from pipeline.cli.arguments import add_dir, add_tokenizer, count
from pipeline.cli.console import note, progress_bar
from pipeline.text import visible

EXAMPLES = ("figa verify out/hh-rlhf", "figa verify out/hh-rlhf --sample 1000 --tokenizer org/my-sft-model")
EXIT_CODES = "0 all is as the manifest says · 1 something is not · 2 no data set there, or no tokenizer"
_SHOWN = 20


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p)
    p.add_argument("--sample", metavar="N", type=count, help="check the labels of N rows only")
    add_tokenizer(p)
    p.add_argument("--no-labels", action="store_true", help="skip the labels; needs no tokenizer")
    p.add_argument("--first", action="store_true", help="stop at the first problem")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.dataset.verify import KEPT, verify

    result = verify(
        arguments.dir,
        sample=arguments.sample,
        tokenizer=arguments.tokenizer,
        labels=not arguments.no_labels,
        first=arguments.first,
        progress=progress_bar,
    )
    for text in result.notes:
        note(text)
    for problem in result.problems[:_SHOWN]:
        # A message may repeat what a damaged file holds.
        print(visible(str(problem).replace("\n", " ")))
    if result.count > _SHOWN:
        print(f"... and {result.count - _SHOWN} more (--json lists up to {KEPT})")
    verdict = f"{result.count} problem{'s' * (result.count > 1)}" if result.count else "all is as the manifest says"
    print(f"{verdict}: {result.rows} rows, labels of {result.labelled} computed again and compared")
    return int(result.count > 0), result.as_dict()
