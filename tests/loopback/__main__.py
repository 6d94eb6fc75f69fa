"""`python -m tests.loopback`: a model server to try things against, without a key, a network or a bill."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from collections.abc import Sequence

from tests.loopback.batches import BatchDesk
from tests.loopback.behaviours import BEHAVIOURS
from tests.loopback.engine import Engine
from tests.loopback.faults import ALL_FAULTS, PASSING_FAULTS, FaultPlan
from tests.loopback.limits import RateLimiter
from tests.loopback.server import KEY, start


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.loopback", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one")
    parser.add_argument("--behaviour", choices=sorted(BEHAVIOURS), default="pipeline")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--key", default=KEY, help='the key to insist on; "" for any')
    parser.add_argument("--rpm", type=int, help="requests a minute")
    parser.add_argument("--tpm", type=int, help="tokens a minute")
    parser.add_argument(
        "--burst", type=float, default=60.0, metavar="SECONDS", help="how much of a minute's limit at once"
    )
    parser.add_argument("--hints", choices=("all", "retry", "none"), default="all", help="headers that tell of limits")
    parser.add_argument("--cached-share", type=float, default=0.0, help="of the prompt tokens")
    parser.add_argument("--fault-rate", type=float, default=0.0)
    parser.add_argument("--faults", nargs="+", choices=ALL_FAULTS, default=PASSING_FAULTS, metavar="FAULT")
    parser.add_argument("--keyed-by", choices=("arrival", "content"), default="arrival")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--retry-after", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--hang", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--json", action="store_true", help="print one JSON line when ready, for programs")
    return parser


def engine_from(options: argparse.Namespace) -> Engine:
    faults = FaultPlan.random(
        options.fault_rate,
        seed=options.seed,
        faults=options.faults,
        keyed_by=options.keyed_by,
        retry_after=options.retry_after,
        hang_seconds=options.hang,
    )
    limited = options.rpm or options.tpm
    return Engine(
        BEHAVIOURS[options.behaviour],
        faults=faults,
        latency=options.latency,
        key=options.key or None,
        limiter=RateLimiter(options.rpm, options.tpm, burst_seconds=options.burst) if limited else None,
        cached_share=options.cached_share,
        hints=options.hints,
    )


async def serve(options: argparse.Namespace) -> None:
    runner, port = await start(engine_from(options), options.host, options.port, BatchDesk().extensions)
    url = f"http://{options.host}:{port}"
    if options.json:
        print(json.dumps({"url": url, "openai": f"{url}/v1", "anthropic": url, "key": options.key}), flush=True)
    else:
        print(f"export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={options.key or 'any'}")
        print(f"export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY={options.key or 'any'}")
        print(f"curl {url}/_stats          # counts; Ctrl-C stops", flush=True)
    stopped = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    await stopped.wait()
    await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser().parse_args(arguments)))


if __name__ == "__main__":
    main()
