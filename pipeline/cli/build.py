"""`figa build --source NAME`: create a data set: sample, score, select, revise, filter, label and publish.

The same command again continues where a run stopped, and does nothing twice.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.arguments import add_json, add_run_settings, run_config

if TYPE_CHECKING:
    from pipeline.config.settings import CurationConfig
    from pipeline.curate import Outcome, Watcher

HELP_WHEN_BARE = True
INTERRUPTED = "run the same command again to go on"
EPILOG = """\
examples:
  figa build --source hh-rlhf --limit 96
  figa build --source hh-rlhf --input pairs.jsonl.gz --out out/mine --dry-run
  figa build --source jsonl --input q.jsonl --set reviser.model=openai/gpt-4o-mini --budget 5

exit codes: 0 done · 1 failed · 2 bad usage, setting or input · 3 budget reached (resumable)
130 interrupted · 143 terminated (both resumable; a second Ctrl-C leaves at once)
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_run_settings(p)
    p.add_argument("--dry-run", action="store_true", help="print the plan with calls and cost, spend nothing")
    add_json(p)
    p.add_argument(
        "--prefect",
        choices=("auto", "server", "ephemeral", "off"),
        default="auto",
        help="auto: through the server that answers at PREFECT_API_URL, else without (default)",
    )


def run(arguments: argparse.Namespace) -> int:
    from pipeline.cli import terminal
    from pipeline.errors import CurationError

    config = run_config(arguments)
    with terminal.Terminal(to_stderr=arguments.json) as screen:
        if arguments.dry_run:
            from pipeline.run.estimate import estimate

            screen.estimate(estimate(config, screen.warn), as_json=arguments.json)
            return 0
        try:
            outcome = _run(config, arguments.prefect, screen)
        except (KeyboardInterrupt, CurationError) as error:
            _tell_of_batches(config.out)
            if arguments.json:
                screen.stopped(config.out, error)
            raise
        screen.summary(outcome, as_json=arguments.json)
        _tell_of_batches(config.out, finished=True)
        return 0


def _tell_of_batches(out: Path, *, finished: bool = False) -> None:
    """What a run leaves at a provider, and how to call it off: when it has `finished`, what no row asks for any more."""
    from pipeline.models.batch.ledger import unfinished

    if left := unfinished(out / "work"):
        requests = sum(batch.size for batch in left)
        fate = (
            "No row asks for them, and --budget counts their worst case"
            if finished
            else "The same command collects them"
        )
        print(
            f"batches still at the provider: {len(left)}, with {requests} requests. {fate}; "
            f"figa cancel {shlex.quote(str(out))} cancels them",
            file=sys.stderr,
        )


def _run(config: CurationConfig, prefect: str, screen: Watcher) -> Outcome:
    if prefect == "ephemeral" or (prefect != "off" and _server_answers(insist=prefect == "server")):
        _prepare_prefect(ephemeral=prefect == "ephemeral")
        from flows.curate import run_with_prefect

        return run_with_prefect(config, screen)
    from pipeline.curate import curate, in_threads

    return curate(config, in_threads, screen)


def _prepare_prefect(*, ephemeral: bool) -> None:
    """Prefect reads these when it is imported. Its console log would repeat the display, and print tracebacks."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if ephemeral:
        os.environ.pop("PREFECT_API_URL", None)
        os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "true"
        # Its default of 20 s is too short for a busy machine's first start.
        os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


def _server_answers(*, insist: bool) -> bool:
    """Whether a Prefect server answers at PREFECT_API_URL. Raises UsageError when it must and doesn't."""
    from pipeline.cli.prefect_server import trouble
    from pipeline.errors import UsageError

    url = os.environ.get("PREFECT_API_URL")
    why = trouble(url) if url else "PREFECT_API_URL is not set"
    if why is None:
        return True
    if url:
        why = f"no Prefect server answers at {url} ({why})"
    if insist:
        raise UsageError(f"--prefect server: {why}; start one with `prefect server start`, or use --prefect off")
    return False
