"""`figa cancel DIR`: cancel what an interrupted run has left at a provider's batch API.

What was answered by then is paid for; the run's next start collects it, and sends the rest again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.cli.streams import take_any_text
from pipeline.storage.location import argument

if TYPE_CHECKING:
    from pipeline.models.batch.ledger import Batch

_TIMEOUT_S = 60.0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="figa cancel", description=(__doc__ or "").split(": ", 1)[1])
    p.add_argument("dir", metavar="DIR", type=argument, help="the run's output folder")
    p.add_argument("--yes", action="store_true", help="don't ask")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    take_any_text()
    arguments = parser().parse_args(argv)
    from pipeline.cli.interrupts import exit_code_of

    return exit_code_of(lambda: _main(arguments), "run the same command again for the batches that are left")


def _main(arguments: argparse.Namespace) -> int:
    from pipeline.models.batch.ledger import unfinished

    batches = unfinished(arguments.dir / "work")
    if not batches:
        print(f"{arguments.dir}: no batch is at a provider")
        return 0
    for batch in batches:
        print(f"{batch.model}: {batch.size} requests, {batch.done} done, {batch.state}")
    if not arguments.yes and not _agreed():
        return 0
    return max(_cancel(batch) for batch in batches)


def _agreed() -> bool:
    try:
        return input("cancel? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Nobody is there to be asked: not done is not success.
        raise KeyboardInterrupt from None


def _cancel(batch: Batch) -> int:
    """Ask the provider to stop a batch; the exit code."""
    from pipeline.config.model_names import ModelSpec
    from pipeline.errors import ProviderStopped, RowReject
    from pipeline.models import event_loop, factory
    from pipeline.models.provider_errors import Transient

    if batch.id is None:
        print(f"{batch.model}: it isn't known whether this batch was sent; the next run finds out", file=sys.stderr)
        return 1
    batch_id = batch.id

    async def ask() -> None:
        # Made on the loop that it will be used on.
        api = factory.batch_api(ModelSpec.parse(batch.model), _TIMEOUT_S)
        try:
            await api.cancel(batch_id)
        finally:
            await api.close()

    try:
        event_loop.run(ask())
    except (Transient, RowReject, ProviderStopped) as error:
        reason = getattr(error, "evidence", {}).get("error", str(error))
        print(f"error: {batch.model}: not cancelled: {reason}", file=sys.stderr)
        return 1
    print(f"{batch.model}: cancelling {batch_id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
