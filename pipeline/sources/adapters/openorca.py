"""OpenOrca: questions of the FLAN collection, answered by GPT-4 and GPT-3.5 under various system prompts.

Page: https://huggingface.co/datasets/Open-Orca/OpenOrca   Licence: MIT   Format as of: 3f94996
Paper: Mukherjee et al., Orca: Progressive Learning from Complex Explanation Traces of GPT-4, 2023, arXiv 2306.02707

    {"id": "flan.564327", "system_prompt": "You are a helpful assistant.", "question": "2 + 2?", "response": "4."}

gives the query system / 2 + 2? and the reference "4.". An empty `system_prompt` gives no system message. There is no
rejected reply.
"""

from functools import partial

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter

EXPECTED = '{"system_prompt": "…", "question": "…", "response": "…"}'
_READER = partial(read, fields={"prompt": "question", "system": "system_prompt", "reference": "response"})
ADAPTER = Adapter("openorca", _READER, EXPECTED, hub_id="Open-Orca/OpenOrca", licence="MIT")
