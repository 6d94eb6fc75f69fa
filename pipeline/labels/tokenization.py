"""From texts to the exact ids that a trainer feeds: rendered prompt, response, EOS.

One tokenisation: prompt and response are rendered to one string, tokenised once, and the boundary is found by character
offsets. A pair for which that boundary falls inside a token is refused, never shifted: tokenising the prompt alone and
hoping is how labels come to sit one token off.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from pipeline.config import LabelSettings, digest
from pipeline.errors import ConfigError, RowReject

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Messages = Sequence[dict[str, str]]

# Stanford Alpaca's prompt, which the authors' trainer uses; several turns are joined as its instruction.
_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+|\s+")


@dataclass(frozen=True, slots=True)
class TokenizedAnswer:
    """One sequence as a trainer feeds it. ids: prompt, response, EOS; words: word index of each response token."""

    ids: list[int]
    prompt_length: int
    words: list[int]

    @property
    def response_ids(self) -> list[int]:
        return self.ids[self.prompt_length :]


class LabelTokenizer:
    """A fast tokenizer with the template that turns queries into prompts.

    Raises ConfigError when the tokenizer has no EOS, no chat template although one is asked for, or no offsets.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: LabelSettings, name: str) -> None:
        self.name = name
        self.template = settings.template
        self.max_length = settings.max_length
        self._tokenizer = tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(f"labels.tokenizer {name}: only fast tokenizers give the offsets that labels need")
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"labels.tokenizer {name}: has no EOS token, which must end every response")
        if self.template == "chat" and not tokenizer.chat_template:
            raise ConfigError(f"labels.tokenizer {name}: has no chat template; set labels.template=alpaca")
        self.eos_id = int(tokenizer.eos_token_id)
        self._special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        # Rows of the encoder's output must not depend on what other rows were in the batch.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        # Without special tokens a post-processor adds nothing; some trim offsets, which would hide a token that begins
        # in the prompt's last space.
        tokenizer.backend_tokenizer.post_processor = None
        try:
            self.render([{"role": "user", "content": "q"}])
        except RowReject as reject:
            error = reject.evidence["error"]
            raise ConfigError(f"labels.tokenizer {name}: its chat template can't be rendered: {error}") from None

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the ids: vocabulary, merges, pre-tokeniser, special tokens, template, versions."""
        import tokenizers

        template = str(self._tokenizer.chat_template) if self.template == "chat" else _ALPACA
        return digest(self._tokenizer.backend_tokenizer.to_str(), template, self.eos_id, tokenizers.__version__)

    def render(self, messages: Messages) -> str:
        """The prompt: everything that precedes the first character of the response."""
        if self.template == "alpaca":
            return _ALPACA.replace("{instruction}", "\n\n".join(m["content"] for m in messages), 1)
        try:
            return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
        except (TemplateError, TypeError, ValueError) as error:
            raise RowReject("template_refuses", error=" ".join(str(error).split())) from None

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token; concatenated they are the text of all."""
        done, texts = "", []
        for end in range(1, len(ids) + 1):
            whole = self.decode(ids[:end])
            # An unfinished multi-byte character decodes to U+FFFD: its text goes to the token that completes it. With some
            # decoders it even takes back the bytes before it.
            visible = whole.rstrip("\ufffd") if end < len(ids) else whole
            if not visible.startswith(done):
                visible = done
            texts.append(visible[len(done) :])
            done = visible
        return texts

    def tokenize(self, messages: Messages, *responses: str) -> list[TokenizedAnswer]:
        """Tokenise each response behind the same prompt, EOS appended.

        Raises RowReject: special_token_in_text (a text spells a control token), template_refuses (the chat template
        has no place for these roles), token_across_boundary (a token covers the end of the prompt and the start of the
        response), too_long.
        """
        texts = [m["content"] for m in messages] + list(responses)
        for special in self._special:
            if any(special in text for text in texts):
                raise RowReject("special_token_in_text", token=special)
        prompt = self.render(messages)
        encodings = self._tokenizer.backend_tokenizer.encode_batch(
            [prompt + response for response in responses], add_special_tokens=False
        )
        answers = [
            self._split(encoding, prompt + response, len(prompt))
            for encoding, response in zip(encodings, responses, strict=True)
        ]
        first = answers[0]
        if any(a.ids[: a.prompt_length] != first.ids[: first.prompt_length] for a in answers[1:]):
            raise RowReject("token_across_boundary", detail="the prompt's ids depend on the response behind it")
        return answers

    def _split(self, encoding: Any, text: str, boundary: int) -> TokenizedAnswer:
        offsets = encoding.offsets
        length = next((i for i, (_, end) in enumerate(offsets) if end > boundary), len(offsets))
        if length < len(offsets) and offsets[length][0] < boundary:
            raise RowReject("token_across_boundary", token=encoding.tokens[length])
        ids = [*encoding.ids, self.eos_id]
        if len(ids) > self.max_length:
            raise RowReject("too_long", tokens=len(ids), max_length=self.max_length)
        words = _words(text, boundary, offsets[length:])
        return TokenizedAnswer(ids, length, [*words, max(words, default=0) + 1])


def _words(text: str, start: int, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The word of text[start:] to which each token belongs, by the first character of it that isn't white space.

    Not the tokenizer's own word ids: Llama 2's family splits nothing beforehand, so all of a text would be one word.
    """
    starts = [match.start() for match in _WORD.finditer(text, start)]
    firsts = (end - len(text[begin:end].lstrip()) if text[begin:end].strip() else begin for begin, end in offsets)
    return [bisect_right(starts, first) for first in firsts]


@lru_cache(maxsize=4)
def load_tokenizer(source: str | Path, settings: LabelSettings, name: str) -> LabelTokenizer:
    """Load from a folder or the Hub, never running code that comes with it. Raises ConfigError, in one line."""
    # Its advice to install torch is not for those who only tokenise.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"labels.tokenizer {source}: can't be loaded as a folder or Hub id: {reason}") from None
    return LabelTokenizer(tokenizer, settings, name)
