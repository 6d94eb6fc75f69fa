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

from pipeline.cli.arguments import add_run_settings, positive_integer, run_config
from pipeline.cli.interrupts import print_error
from pipeline.cli.prefect_server import prefect_problem, start_server
from pipeline.errors import CurationError, UsageError

if TYPE_CHECKING:
    from pipeline.cli.terminal import Terminal
    from pipeline.config.settings import CurationConfig
    from pipeline.curate import Outcome, Reporter

HELP_WHEN_BARE = True
INTERRUPTED = "run the same command again to go on"
EXAMPLES = (
    "figa build --source demo",
    "figa build --source hh-rlhf --limit 96",
    "figa build --source hh-rlhf --input pairs.jsonl.gz --out out/mine --dry-run",
    "figa build --source hh-rlhf --limit 48 --rounds 2 --model org/my-sft-model",
    "figa build --source jsonl --input q.jsonl --set reviser.model=openai/gpt-4o-mini --budget 5",
)
EXIT_CODES = """\
0 done · 1 failed · 2 bad usage, setting or input · 3 budget reached (resumable)
130 interrupted · 143 terminated (both resumable; a second Ctrl-C leaves at once)"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    add_run_settings(p)
    p.add_argument("--dry-run", action="store_true", help="print the plan with calls and cost, spend nothing")
    p.add_argument(
        "--prefect",
        choices=("auto", "server", "ephemeral", "off"),
        default="auto",
        help="auto: through the server that answers at PREFECT_API_URL, else without (default)",
    )
    group = p.add_argument_group("rounds", "sample, train on the pairs, and sample again from the trained model")
    group.add_argument("--rounds", metavar="K", type=positive_integer, help="number of rounds; needs '.[train]'")
    group.add_argument("--model", metavar="ID", help="folder or Hub id to begin with; default: the embedded policy")
    group.add_argument("--train", metavar="OPTIONS", default="", help="more of figa train, as '--epochs 3 --lr 1e-5'")
    group.add_argument("--serve", metavar="COMMAND", help="serves {model} at {port}; default: transformers serve …")


def run(arguments: argparse.Namespace) -> tuple[int, object]:
    from pipeline.cli.terminal import Terminal

    config = run_config(arguments)
    with Terminal() as screen:
        if arguments.dry_run:
            from pipeline.run.estimate import estimate

            plan = estimate(config, screen.warn)
            if not arguments.json:
                screen.estimate(plan)
            return 0, plan.as_dict()
        try:
            if arguments.rounds:
                return 0, {"rounds": _rounds(config, arguments, screen)}
            outcome = _run(config, arguments.prefect, screen)
        except (KeyboardInterrupt, CurationError) as error:
            _print_batches(config.out, "The same command collects them")
            code = print_error(error, INTERRUPTED)
            return code, _incomplete(config.out, str(error), code) if arguments.json else None
        screen.summary(outcome)
        _print_batches(config.out, "No row asks for them, and --budget counts their worst case")
        return 0, _result(outcome)


def _rounds(config: CurationConfig, arguments: argparse.Namespace, screen: Terminal) -> list[dict[str, object]]:
    """Run the rounds, print their table, and return its rows."""
    from pipeline.cli.train import check_extra
    from pipeline.training.rounds import SERVE, run_rounds

    check_extra()
    model = arguments.model or config.policy.model
    if not arguments.model and not model.startswith("local/"):
        raise UsageError(f"--rounds: {model} can't be trained here: name the model to begin with, by --model")
    rows = run_rounds(
        config,
        model,
        arguments.rounds,
        lambda settings: _run(settings, arguments.prefect, screen).manifest,
        train=shlex.split(arguments.train),
        serve=arguments.serve or SERVE,
    )
    done = list(rows)
    screen.rounds(done)
    return done


def _result(outcome: Outcome) -> dict[str, object]:
    """The object of --json: counts per stage, and the paths."""
    out, manifest = outcome.out, outcome.manifest
    return {
        "out": str(out),
        "manifest": str(out / "manifest.json"),
        "report": str(out / "report.html"),
        "already_done": outcome.already_done,
        "calls": outcome.calls,
        "cost_usd": manifest["cost_usd"],
        "unpriced": manifest.get("unpriced", []),
        "unanswered": manifest.get("unanswered", 0),
        "rows": manifest["rows"],
        "stages": manifest["funnel"],
        "source": manifest["source"],
        "reward_check": manifest.get("reward_check"),
        "files": [str(out / entry["path"]) for entry in manifest["files"]],
        "rejected_files": [str(out / entry["path"]) for entry in manifest["rejected_files"]],
    }


def _incomplete(out: Path, error: str, exit_code: int) -> dict[str, object]:
    """The object of --json for a run that ended early: why, and what is there. After a signal there are seconds for it."""
    from pipeline.run.status import folder_state

    state = folder_state(out, rerun=False)
    return {
        "out": str(out),
        "error": error or "interrupted",
        "exit_code": exit_code,
        "calls": sum(state.calls.values()),
        "cost_usd": state.cost_usd,
        "stages": [{"stage": stage.stage, "out": stage.rows, "rejected": stage.rejected} for stage in state.stages],
    }


def _print_batches(out: Path, fate: str) -> None:
    """Print what the run leaves at a provider, and how to cancel it."""
    from pipeline.models.batch.ledger import unfinished

    if batches := unfinished(out / "work"):
        requests = sum(batch.size for batch in batches)
        print(
            f"batches still at the provider: {len(batches)}, with {requests} requests. {fate}; "
            f"figa cancel {shlex.quote(str(out))} cancels them",
            file=sys.stderr,
        )


def _run(config: CurationConfig, prefect: str, screen: Reporter) -> Outcome:
    if prefect == "ephemeral" or (prefect != "off" and _server_answers(required=prefect == "server")):
        # Read when Prefect is imported. Its console log would repeat the display, and print tracebacks.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        if prefect == "ephemeral":
            start_server()
        from flows.curate import run_with_prefect

        return run_with_prefect(config, screen)
    from pipeline.curate import curate, in_threads

    return curate(config, in_threads, screen)


def _server_answers(*, required: bool) -> bool:
    """Whether a Prefect server answers at PREFECT_API_URL. Raises UsageError when it must and doesn't."""
    url = os.environ.get("PREFECT_API_URL")
    problem = prefect_problem(url) if url else "PREFECT_API_URL is not set"
    if problem and required:
        at = f"no Prefect server answers at {url} ({problem})" if url else problem
        raise UsageError(f"--prefect server: {at}; start one with `prefect server start`, or use --prefect off")
    return problem is None
