"""`figa push DIR HUB_ID`: send a published data set to the Hugging Face Hub, in one commit.

Sends what the manifest names, the card, the report, and the manifest without the folders of this machine: never work/, with
its journal of calls. The token is that of HF_TOKEN or `hf auth login`.
"""

from __future__ import annotations

import argparse
import json
import sys

from pipeline.cli.arguments import add_json
from pipeline.storage.location import local_argument

INTERRUPTED = "the Hub shows a commit whole or not at all: run the same command again"
EPILOG = """\
example:
  figa push out/hh-rlhf owner/name --private

exit codes: 0 sent · 1 the Hub failed · 2 bad usage, or files that are not as the manifest says · 130 interrupted
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", type=local_argument, help="output folder of a finished run")
    p.add_argument("hub_id", metavar="HUB_ID", help="owner/name; created if it isn't there")
    p.add_argument("--private", action="store_true", help="a new data set is private")
    p.add_argument("--dry-run", action="store_true", help="check the files and say what would be sent")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import counting
    from pipeline.dataset.push import checked_files, push

    names = checked_files(arguments.dir, counting)
    total = sum((arguments.dir / name).stat().st_size for name in names)
    out = sys.stderr if arguments.json else sys.stdout
    print(f"{len(names)} files, {total / 1e6:.1f} MB, all as the manifest says", file=out)
    url = None
    if arguments.dry_run:
        print("\n".join(names), file=out)
        print(f"nothing was sent; without --dry-run they go to {arguments.hub_id}", file=out)
    else:
        url = push(arguments.dir, names, arguments.hub_id, private=arguments.private)
        print(f"sent  {url}", file=out)
    if arguments.json:
        print(json.dumps({"files": names, "bytes": total, "url": url}))
    return 0
