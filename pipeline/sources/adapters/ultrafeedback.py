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

_FIELDS = {"messages": "chosen", "rejected": "rejected"}


def parse(raw: dict[str, Any]) -> SourceRow:
    """The conversation before the last reply of `chosen`, with both final replies."""
    row = read(raw, _FIELDS)
    scores = (raw.get("score_chosen"), raw.get("score_rejected"))
    chosen, rejected = (score if isinstance(score, int | float) else None for score in scores)
    tied = chosen is not None and rejected is not None and not rejected < chosen
    return row._replace(rejected=None) if tied else row


ADAPTER = Adapter(
    name="ultrafeedback",
    reader=parse,
    expected='{"chosen": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "rejected": […]}',
    hub_id="HuggingFaceH4/ultrafeedback_binarized",
    hub_split="train_prefs",
    licence="MIT",
)
