"""`figa export DIR --format NAME --out DIR2`: a published data set in the format of another trainer.

formats:
  spa            the released SPA data set's five fields, JSON
  dpo            preference pairs for TRL; variants conversational (default), standard
  sft            the revisions, for imitation; variants messages (default), prompt-completion, standard
  sequences      one row per sequence: input_ids, labels, loss_weights; the token labels for any trainer
  llamafactory   ShareGPT-style preference JSON with dataset_info.json
"""

import argparse

from pipeline.cli.arguments import add_dir, folder
from pipeline.cli.console import print_values, progress_bar

INTERRUPTED = "the output is not complete: delete it and run again"
EXAMPLES = ("figa export out/hh-rlhf --format dpo --out out/dpo",)


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p)
    p.add_argument("--format", metavar="NAME", required=True, help="see above")
    p.add_argument("--variant", metavar="NAME", help="layout, where a format has several")
    p.add_argument("--out", metavar="DIR2", type=folder, required=True, help="a new folder")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline import open_dataset
    from pipeline.dataset.facts import counts
    from pipeline.exports import formats
    from pipeline.exports.writing import export

    format, variant = formats.get(arguments.format, arguments.variant)
    dataset = open_dataset(arguments.dir)
    with progress_bar(f"exporting {arguments.dir}", len(dataset)) as advance:
        content = export(dataset, format, variant, arguments.out, advance)
    pairs = content["pairs"]
    reasons = f" ({counts(content['skipped'])})" if content["skipped"] else ""
    print(f"{pairs['read']} pairs = {pairs['exported']} exported + {pairs['skipped']} skipped{reasons}")
    print_values(data=arguments.out / format.file, README=arguments.out / "README.md")
    return 0, content
