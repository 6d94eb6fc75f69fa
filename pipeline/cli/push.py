"""`figa push DIR HUB_ID`: send a published data set to the Hugging Face Hub, in one commit.

Sends what the manifest names, card and report included, and the manifest without the folders of this machine: no symbolic
link, and never work/, with its journal of calls. The token is that of HF_TOKEN or `hf auth login`.
"""

import argparse

from pipeline.cli.arguments import add_dir
from pipeline.cli.console import progress_bar

INTERRUPTED = "the Hub shows a commit whole or not at all: run the same command again"
EXAMPLES = ("figa push out/hh-rlhf owner/name --private",)
EXIT_CODES = "0 sent · 1 the Hub failed · 2 bad usage, or files that are not as the manifest says · 130 interrupted"


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p, "output folder of a finished run, on this machine")
    p.add_argument("hub_id", metavar="HUB_ID", help="owner/name; created if it isn't there")
    p.add_argument("--private", action="store_true", help="a new data set is private")
    p.add_argument("--dry-run", action="store_true", help="check the files and say what would be sent")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.dataset.push import check_id, checked_files, push
    from pipeline.errors import UsageError
    from pipeline.storage.remote import RemotePath

    if isinstance(arguments.dir, RemotePath):
        raise UsageError(f"{arguments.dir}: here a folder on this machine is needed")
    check_id(arguments.hub_id)
    names = checked_files(arguments.dir, progress_bar)
    total = sum((arguments.dir / name).stat().st_size for name in names)
    print(f"{len(names)} files, {total / 1e6:.1f} MB, all as the manifest says")
    url = None
    if arguments.dry_run:
        print("\n".join(names))
        print(f"nothing was sent; without --dry-run they go to {arguments.hub_id}")
    else:
        url = push(arguments.dir, names, arguments.hub_id, private=arguments.private)
        print(f"sent  {url}")
    return 0, {"files": names, "bytes": total, "url": url}
