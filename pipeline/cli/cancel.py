"""`figa cancel DIR`: cancel the batches that an interrupted run has left at a provider's batch API.

Answers that are ready by then are paid for: the run's next start collects them, and sends the rest again. A batch that the
provider knows nothing of any more is given up; what it may have cost stays set aside in the budget.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.arguments import add_dir

if TYPE_CHECKING:
    from pipeline.models.batch.ledger import Batch

_TIMEOUT_S = 60.0
INTERRUPTED = "run the same command again for the batches that are left"
EXAMPLES = ("figa cancel out/hh-rlhf --yes",)
EXIT_CODES = "0 cancelled, or nothing to cancel · 1 a batch could not be cancelled · 2 bad usage · 130 interrupted"


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_dir(p, "the run's output folder")
    p.add_argument("--yes", action="store_true", help="don't ask")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.models.batch.ledger import unfinished
    from pipeline.run.record import recall

    batches = unfinished(arguments.dir / "work")
    if not batches:
        print(f"{arguments.dir}: no batch is at a provider")
    for batch in batches:
        print(f"{batch.model}: {batch.size} requests, {batch.done} done, {batch.state}")
    confirmed = bool(batches) and (arguments.yes or _confirmed())
    keys = recall(arguments.dir).get("keys", {})
    cancelled = (
        [_cancel(arguments.dir / "work", batch, keys.get(batch.model)) for batch in batches] if confirmed else []
    )
    failed = cancelled.count(False)
    return int(failed > 0), {"batches": len(batches), "cancelled": cancelled.count(True), "failed": failed}


def _confirmed() -> bool:
    try:
        return input("cancel? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Nobody answers: that nothing was cancelled is no success.
        raise KeyboardInterrupt from None


def _cancel(work: Path, batch: "Batch", api_key_env: str | None) -> bool:
    """Have the provider stop a batch; returns whether it will, or has nothing to stop. api_key_env: as the run named it."""
    from pipeline.errors import ConfigError, ProviderStopped, RowReject
    from pipeline.models import event_loop
    from pipeline.models.batch.ledger import FILE, BatchLedger
    from pipeline.models.batch.waiting import GONE
    from pipeline.models.provider_errors import Transient, reason_of
    from pipeline.storage.location import local_side

    with closing(BatchLedger(local_side(work) / FILE)) as ledger:
        try:
            batch_id = event_loop.run(_stop(batch, ledger.ids(), api_key_env))
        except (Transient, RowReject, ProviderStopped, ConfigError) as error:
            if not isinstance(error, RowReject) or error.evidence.get("status") not in GONE:
                print(f"error: {batch.model}: not cancelled: {reason_of(error)}", file=sys.stderr)
                return False
            ledger.give_up(batch.key)
            print(f"{batch.model}: {batch.id} is gone at the provider, and given up")
            return True
        if batch_id is None:
            ledger.finish(batch.key)
            print(f"{batch.model}: a batch of {batch.size} requests never reached the provider, and is given up")
        else:
            print(f"{batch.model}: cancelling {batch_id}")
    return True


async def _stop(batch: "Batch", known: set[str], api_key_env: str | None) -> str | None:
    """Cancel a batch; its id, or None where the provider has none. known: the ids of all our batches."""
    from pipeline.config.model_names import ModelSpec
    from pipeline.errors import ProviderStopped
    from pipeline.models import factory

    # Created on the loop that it is used on.
    api = factory.batch_api(ModelSpec.parse(batch.model), api_key_env, _TIMEOUT_S)
    try:
        found = batch.id or await api.find(batch, known)
        if found and not batch.id and not api.finds_surely:
            raise ProviderStopped(f"{found} may be this batch or another program's; the next run looks")
        if found:
            await api.cancel(found)
        return found
    finally:
        await api.close()
