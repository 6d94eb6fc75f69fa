"""CLAIR: prompts of UltraFeedback with an answer of Llama 3 8B Instruct and its minimal improvement by GPT-4 Turbo.

Page: https://huggingface.co/datasets/ContextualAI/ultrafeedback_clair_32k   Licence: unknown
Paper: D'Oosterlinck et al., Anchored Preference Optimization and Contrastive Revisions, 2024, arXiv 2408.06266

    {"prompt": "2 + 2?", "rejected": "5.", "chosen": "4.", "rational": "The sum is wrong."}

gives the query `prompt`, the initial answer `rejected`, the revision `chosen`, which is the reference too, and the rationale as
the critique. Either answer may be a conversation, as trainers of preferences want it.
"""

from functools import partial

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter

_FIELDS = {"prompt": "prompt", "initial": "rejected", "revised": "chosen", "critique": "rational"}
EXPECTED = '{"prompt": "…", "rejected": "…", "chosen": "…", "rational": "…"}'
_HUB_ID = "ContextualAI/ultrafeedback_clair_32k"
ADAPTER = Adapter("clair", partial(read, fields=_FIELDS), EXPECTED, hub_id=_HUB_ID, gives_pairs=True)
