"""`figa cancel DIR`: cancel the batches that an interrupted run has left at a provider's batch API.

What is answered by then is paid for: the run's next start collects it, and sends the rest again.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, TextIO

from pipeline.cli.arguments import add_json
from pipeline.storage.location import argument

if TYPE_CHECKING:
    from pipeline.models.batch.ledger import Batch

_TIMEOUT_S = 60.0


INTERRUPTED = "run the same command again for the batches that are left"
EPILOG = """\
example:
  figa cancel out/hh-rlhf --yes

exit codes: 0 cancelled, or nothing to cancel · 1 a batch could not be cancelled · 2 bad usage · 130 interrupted
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("dir", metavar="DIR", type=argument, help="the run's output folder")
    p.add_argument("--yes", action="store_true", help="don't ask")
    add_json(p)


def run(arguments: argparse.Namespace) -> int:
    from pipeline.models.batch.ledger import unfinished

    batches = unfinished(arguments.dir / "work")
    out = sys.stderr if arguments.json else sys.stdout
    if not batches:
        print(f"{arguments.dir}: no batch is at a provider", file=out)
    for batch in batches:
        print(f"{batch.model}: {batch.size} requests, {batch.done} done, {batch.state}", file=out)
    agreed = bool(batches) and (arguments.yes or _agreed())
    codes = [_cancel(batch, out) for batch in batches] if agreed else []
    if arguments.json:
        print(json.dumps({"batches": len(batches), "cancelled": codes.count(0), "failed": len(codes) - codes.count(0)}))
    return max(codes, default=0)


def _agreed() -> bool:
    try:
        return input("cancel? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Nobody is there to be asked: not done is not success.
        raise KeyboardInterrupt from None


def _cancel(batch: Batch, out: TextIO) -> int:
    """Ask the provider to stop a batch; the exit code."""
    from pipeline.config.model_names import ModelSpec
    from pipeline.errors import ProviderStopped, RowReject
    from pipeline.models import event_loop, factory
    from pipeline.models.provider_errors import Transient, reason_of

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
        print(f"error: {batch.model}: not cancelled: {reason_of(error)}", file=sys.stderr)
        return 1
    print(f"{batch.model}: cancelling {batch_id}", file=out)
    return 0
