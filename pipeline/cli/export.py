"""`figa export DIR --format NAME --out DIR2`: a published data set in the format of another trainer.

example:
  figa export out/hh-rlhf --format dpo --out out/dpo
"""

from __future__ import annotations

import argparse
import json

from pipeline.cli.arguments import add_json
from pipeline.storage.location import argument

INTERRUPTED = "the output is not complete: delete it and run again"
EPILOG = """\
formats:
  spa            the released SPA data set's five fields, JSON
  dpo            preference pairs for TRL; variants conversational (default), standard
  sft            the revisions, for imitation; variants messages (default), prompt-completion, standard
  sequences      one row a sequence: input_ids, labels, loss_weights; the token labels for any trainer
  llamafactory   ShareGPT-style preference JSON with dataset_info.json

example:
  figa export out/hh-rlhf --format dpo --out out/dpo
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dataset", metavar="DIR", type=argument, help="output folder of a finished run")
    p.add_argument("--format", metavar="NAME", required=True, help="see below")
    p.add_argument("--variant", metavar="NAME", help="layout, where a format has several")
    p.add_argument("--out", metavar="DIR2", type=argument, required=True, help="a new folder")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
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
