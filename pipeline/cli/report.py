"""`figa report DIR`: write DIR/report.html again: figures, charts and a viewer of the pairs.

One file, which loads nothing.
"""

import argparse

from pipeline.cli.arguments import add_dir, add_tokenizer
from pipeline.cli.console import note, print_values, progress_bar

INTERRUPTED = "an earlier report.html is untouched"
EXAMPLES = ("figa report out/hh-rlhf",)


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p)
    add_tokenizer(p)


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.dataset import manifest as manifest_file
    from pipeline.dataset.reader import read_manifest
    from pipeline.labels.loading import labels_tokenizer
    from pipeline.report.page import write_report
    from pipeline.storage.lock import run_lock

    manifest = read_manifest(arguments.dir)
    tokenizer, problem = labels_tokenizer(manifest, arguments.tokenizer)
    if problem:
        note(problem)
    progress = progress_bar(f"reading {arguments.dir}", manifest["rows"]["published"])
    with run_lock(arguments.dir, note), progress as advance:
        path = write_report(arguments.dir, manifest, tokenizer, note=problem, advance=advance)
        # The manifest names its report, which a newer version may write otherwise.
        if manifest.get("documents") not in (None, documents := manifest_file.documents(arguments.dir)):
            manifest_file.write(arguments.dir, manifest | {"documents": documents})
    print_values(report=path)
    return 0, {"report": str(path)}
