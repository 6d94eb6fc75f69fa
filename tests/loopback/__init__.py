"""A model server on the loopback interface that speaks OpenAI's and Anthropic's wire formats.

    with LoopbackServer(behaviour=policy, faults=FaultPlan.listed(["429_seconds"]), latency=0.1) as server:
        client = AsyncOpenAI(base_url=server.openai_url, api_key=server.key, max_retries=0)
        ...
        assert server.completed == 1

By hand: `python -m tests.loopback --port 8000`. Read in this order: `chat`, `behaviours`, `engine`; then `faults` and
`misbehave`, `limits`, `ledger`; the two `*_wire` files are the providers' spelling.
"""

from tests.loopback.behaviours import (
    BEHAVIOURS,
    always_first,
    by_model,
    echo,
    fair,
    judge,
    make_policy,
    pipeline,
    policy,
)
from tests.loopback.chat import Behaviour, ChatRequest, Reply, Usage, canonical_key, count_tokens
from tests.loopback.faults import ALL_FAULTS, PASSING_FAULTS, FaultPlan
from tests.loopback.ledger import Call
from tests.loopback.reviser import MISTAKES, reviser
from tests.loopback.server import KEY, LoopbackProcess, LoopbackServer

__all__ = [
    "ALL_FAULTS",
    "BEHAVIOURS",
    "KEY",
    "MISTAKES",
    "PASSING_FAULTS",
    "Behaviour",
    "Call",
    "ChatRequest",
    "FaultPlan",
    "LoopbackProcess",
    "LoopbackServer",
    "Reply",
    "Usage",
    "always_first",
    "by_model",
    "canonical_key",
    "count_tokens",
    "echo",
    "fair",
    "judge",
    "make_policy",
    "pipeline",
    "policy",
    "reviser",
]
