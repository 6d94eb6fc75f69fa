"""Any sequence-classification reward model of transformers (needs the `train` extra: torch).

The answer is scored as the model's own chat template renders it; without one, as (query, answer) text pair, which is how
OpenAssistant's `reward-model-deberta-v3-large-v2` was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.config import digest
from pipeline.errors import ConfigError, ModelUnavailable
from pipeline.labels.tokenization import hub_trouble
from pipeline.model_files import folder_digest

if TYPE_CHECKING:
    from pipeline.rewards import Item


class SequenceClassifierReward:
    """R(X, Y) is the first logit. Sorted by length into batches, so that little is spent on padding."""

    def __init__(self, model_id: str, max_length: int, batch_size: int) -> None:
        try:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError:
            raise ConfigError(
                f"reward.model hf/{model_id} needs torch: pip install 'figa-pipeline[train]', or use local/reward-head"
            ) from None
        files = folder_digest(model_id, weights=True)
        trouble = hub_trouble(model_id) if files is None else None
        # Without a Hub that answers, what its cache holds is taken.
        where: dict[str, Any] = {"trust_remote_code": False, "local_files_only": trouble is not None}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model_id, **where)
            self._model = AutoModelForSequenceClassification.from_pretrained(model_id, **where)
        except (OSError, ValueError) as error:
            reason = trouble or " ".join(str(error).split())[:200]
            raise ModelUnavailable(
                f"reward.model hf/{model_id}: can't be loaded as a folder or Hub id: {reason}"
            ) from None
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.eval().to(self._device)
        self._max_length = max_length
        self._batch_size = batch_size
        # Padding needs a token that the model knows to be padding.
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if self._model.config.pad_token_id is None:
            self._model.config.pad_token_id = self._tokenizer.pad_token_id
        revision = getattr(self._model.config, "_commit_hash", None)
        self.name = f"hf/{model_id}" + (f"@{revision[:12]}" if revision else "")
        self.digest = digest(self.name, files, max_length, str(self._tokenizer.chat_template))

    def score(self, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        """Scores in the items' order, shape (n,). Texts over max_length tokens lose their beginning, not the answer."""
        inputs = [self._encode(messages, answer) for messages, answer in items]
        order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]["input_ids"]))
        scores = np.zeros(len(inputs), np.float32)
        for start in range(0, len(order), self._batch_size):
            chosen = order[start : start + self._batch_size]
            batch = self._tokenizer.pad([inputs[i] for i in chosen], return_tensors="pt").to(self._device)
            with self._torch.inference_mode():
                logits = self._model(**batch).logits
            scores[chosen] = logits[:, 0].float().cpu().numpy()
        return scores

    def _encode(self, messages: list[dict[str, str]], answer: str) -> Any:
        self._tokenizer.truncation_side = "left"
        if self._tokenizer.chat_template:
            whole = [*messages, {"role": "assistant", "content": answer}]
            text = self._tokenizer.apply_chat_template(whole, tokenize=False)
            return self._tokenizer(text, add_special_tokens=False, truncation=True, max_length=self._max_length)
        query = "\n\n".join(m["content"] for m in messages)
        return self._tokenizer(query, answer, truncation=True, max_length=self._max_length)
