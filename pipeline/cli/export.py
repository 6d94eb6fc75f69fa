"""`figa export DIR --format NAME --out DIR2`: a published data set in the format of another trainer.

formats, with their variants, the default first:
  spa            the released SPA data set's five fields, JSON
  dpo            preference pairs, reference and margin for TRL; conversational, standard
  sft            the revisions, for imitation; messages, prompt-completion, standard
  kto, tpo       for TRL: answers with a label, and triples with the reference; conversational, standard
  sdft           for TRL: prompts with the reference as privileged context
  sequences      one row per sequence: input_ids, labels, loss_weights; the token labels for any trainer
  axolotl        pre-tokenised revisions; revised, edits (labels on good tokens alone)
  tinker         datums with weights per token, for Tinker and SkyRL; pairs, revised
  tis-dpo        preference pairs with weights per response token; tokens, authors
  openrlhf       preference pairs; conversational, standard
  llamafactory   ShareGPT-style preference JSON with dataset_info.json; sharegpt, tokenized

An export whose trainer would see other tokens than the published ones is refused.
"""

import argparse

from pipeline.cli.arguments import add_dir, folder
from pipeline.cli.console import note, print_values, progress_bar

INTERRUPTED = "nothing was exported: run the same command again"
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
        content = export(dataset, format, variant, arguments.out, advance, note)
    pairs = content["pairs"]
    reasons = f" ({counts(content['skipped'])})" if content["skipped"] else ""
    print(f"{pairs['read']} pairs = {pairs['exported']} exported + {pairs['skipped']} skipped{reasons}")
    print_values(data=arguments.out / format.variants[variant].file, README=arguments.out / "README.md")
    return 0, content
