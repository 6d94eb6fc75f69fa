"""UltraFeedback, binarized: a prompt, the reply that GPT-4 scored highest of four, and one of the others.

Page: https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized   Licence: MIT   Format as of: 2a3fb93
Split: train_prefs
Paper: Cui et al., UltraFeedback: Boosting Language Models with Scaled AI Feedback, 2023, arXiv 2310.01377

    {"prompt": "2 + 2?", "prompt_id": "ab…", "score_chosen": 8.5, "score_rejected": 4.0, "messages": […],
     "chosen":   [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4."}],
     "rejected": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "5."}]}

gives the query "2 + 2?", the reference "4." and the rejected reply "5.". `messages` repeats `chosen`.

- A reply to another context is no rejected reply to this query, nor is one that scored as high (None).
- Some replies are empty; as reference they are rejected (`empty_reference`).
"""

from typing import Any

from pipeline.sources.fields import read
from pipeline.sources.row import Adapter, SourceRow


def parse(raw: dict[str, Any]) -> SourceRow:
    """The conversation before the last reply of `chosen`, with both final replies."""
    row = read(raw, {"messages": "chosen", "rejected": "rejected"})
    chosen, rejected = raw.get("score_chosen"), raw.get("score_rejected")
    tied = isinstance(chosen, int | float) and isinstance(rejected, int | float) and not rejected < chosen
    return row._replace(rejected=None) if tied else row


EXPECTED = '{"chosen": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "rejected": […]}'
_HUB_ID = "HuggingFaceH4/ultrafeedback_binarized"
ADAPTER = Adapter("ultrafeedback", parse, EXPECTED, hub_id=_HUB_ID, hub_split="train_prefs", licence="MIT")
