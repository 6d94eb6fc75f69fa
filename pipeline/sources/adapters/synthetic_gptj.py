"""Synthetic Instruct GPT-J pairwise: instructions with a better and a worse model-written reply.

Page: https://huggingface.co/datasets/Dahoas/synthetic-instruct-gptj-pairwise   Licence: unknown (its page states none)

    {"prompt": "Why is the sky blue?", "chosen": "Because air scatters …", "rejected": "It is not."}

gives the query `prompt`, the reference `chosen` and the rejected reply `rejected`. A blank `rejected`, or one that equals
`chosen`, is no worse reply (None).
"""

from functools import partial

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter

_READER = partial(read, fields={"prompt": "prompt", "reference": "chosen", "rejected": "rejected"})
EXPECTED = '{"prompt": "…", "chosen": "…", "rejected": "…"}'
ADAPTER = Adapter("synthetic-gptj", _READER, EXPECTED, hub_id="Dahoas/synthetic-instruct-gptj-pairwise")
