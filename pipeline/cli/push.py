"""The command line: `figa push DIR HUB_ID`. A published data set to the Hugging Face Hub, in one commit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline.cli.streams import take_any_text
from pipeline.storage.location import local_argument


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="figa push",
        description="Send a published data set to the Hugging Face Hub. The token is that of HF_TOKEN or `hf auth login`.",
    )
    p.add_argument("dir", metavar="DIR", type=local_argument, help="output folder of a finished run")
    p.add_argument("hub_id", metavar="HUB_ID", help="owner/name; created if it isn't there")
    p.add_argument("--private", action="store_true", help="a new data set is private")
    p.add_argument("--dry-run", action="store_true", help="check the files and say what would be sent")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    arguments = parser().parse_args(argv)
    from pipeline.cli.interrupts import exit_code_of

    return exit_code_of(
        lambda: _main(arguments), "the Hub shows a commit whole or not at all: run the same command again"
    )


def _main(arguments: argparse.Namespace) -> int:
    from pipeline.cli.progress_bar import counting
    from pipeline.dataset.push import checked_files, push

    names = checked_files(arguments.dir, counting)
    total = sum((arguments.dir / name).stat().st_size for name in names)
    print(f"{len(names)} files, {total / 1e6:.1f} MB, all as the manifest says")
    if arguments.dry_run:
        print("\n".join(names))
        print(f"nothing was sent; without --dry-run they go to {arguments.hub_id}")
        return 0
    print(f"sent  {push(arguments.dir, names, arguments.hub_id, private=arguments.private)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
