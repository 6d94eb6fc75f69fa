"""Conversations as text, for servers that take no messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import ConfigError
from pipeline.labels.model_files import folder_digest
from pipeline.labels.tokenizer import hub_trouble
from pipeline.schema import digest
from pipeline.text import one_line

_NAMES = {"user": "Human", "assistant": "Assistant", "system": "System"}


class Writer:
    """Writes by the chat template of a tokenizer, a folder or Hub id; without one as the transcripts of hh-rlhf.

    Raises ConfigError when it can't be loaded or has no chat template.
    """

    def __init__(self, tokenizer: str | None) -> None:
        self._tokenizer: Any = None
        if tokenizer:
            self._tokenizer = _load(tokenizer)
        self.digest = digest(str(self._tokenizer.chat_template) if tokenizer else "transcript")

    def text(self, conversation: Sequence[dict[str, str]]) -> str:
        if self._tokenizer:
            return str(self._tokenizer.apply_chat_template(list(conversation), tokenize=False))
        return "".join(f"\n\n{_NAMES.get(m['role'], m['role'])}: {m['content']}" for m in conversation)

    @staticmethod
    def query(messages: Sequence[dict[str, str]]) -> str:
        """The query as one text, of those that take it apart from the answer; as in hf/ models without a template."""
        return "\n\n".join(m["content"] for m in messages)


def _load(name: str) -> Any:
    from transformers import AutoTokenizer

    trouble = hub_trouble(name) if folder_digest(name, weights=False) is None else None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=trouble is not None)
    except Exception as error:  # `tokenizers` raises no class of its own for a damaged file
        reason = trouble or one_line(error)
        raise ConfigError(f"reward.tokenizer {name}: can't be loaded as a folder or Hub id: {reason}") from None
    if not tokenizer.chat_template:
        raise ConfigError(f"reward.tokenizer {name}: has no chat template to write conversations with")
    return tokenizer
