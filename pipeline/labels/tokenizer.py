"""From texts to the exact ids that a trainer feeds: rendered prompt, response, EOS.

One tokenisation: the whole text, from the template's first character to the token that ends the answer, is tokenised once,
and the boundary between prompt and response is found by character offsets. A pair for which that boundary falls inside a
token is refused, never shifted: tokenising the prompt alone and hoping is how labels come to sit one token off.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.settings import LabelSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.labels.templates import Messages, template_of
from pipeline.labels.words import token_words
from pipeline.schema import digest
from pipeline.text import describe_error, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class TokenizedAnswer:
    """One sequence as a trainer feeds it. ids: prompt, response, EOS.

    text: what was tokenised, without its EOS; boundary: where the response begins in it; encoding: its tokens, EOS included.
    """

    ids: list[int]
    prompt_length: int
    text: str
    boundary: int
    encoding: Any = field(repr=False, compare=False)

    @property
    def words(self) -> list[int]:
        """Word index of each response token; the EOS is a word of its own."""
        first = self.prompt_length - len(self.ids)
        words = token_words(self.text, self.boundary, self.encoding.offsets[first:-1])
        return [*words, max(words, default=0) + 1]

    @property
    def pieces(self) -> list[str]:
        """The text of each response token. A character that several tokens share is the first one's; the EOS has none."""
        first = self.prompt_length - len(self.ids)
        pieces, done = [], self.boundary
        for _, end in self.encoding.offsets[first:-1]:
            pieces.append(self.text[done : max(done, end)])
            done = max(done, end)
        # What is behind the last token (or all, where the tokenizer makes nothing of it) is text as well.
        rest = self.text[done:]
        if not pieces:
            return [rest]
        return [*pieces[:-1], pieces[-1] + rest, ""]

    @property
    def response_ids(self) -> list[int]:
        return self.ids[self.prompt_length :]


class LabelTokenizer:
    """A fast tokenizer with the template that turns queries into prompts.

    eos_id: the token that ends every response; with a chat template the one that it writes behind an answer, which need
    not be the tokenizer's `eos_token`. settings.system: the text that is used, or none.
    Raises ConfigError when the tokenizer has no EOS, no offsets, or no usable template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: LabelSettings, name: str) -> None:
        self.name = name
        self.settings = settings
        self._tokenizer = tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(f"labels.tokenizer {name}: only fast tokenizers give the offsets that labels need")
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"labels.tokenizer {name}: has no EOS token, which must end every response")
        self._special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        # Rows of the encoder's output must not depend on what other rows were in the batch.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        try:
            self._template = template_of(tokenizer, settings)
        except ConfigError as error:
            raise ConfigError(f"labels.tokenizer {name}: {error}") from None
        if self._template.end not in self._special:
            self._special.append(self._template.end)
        self.eos_id = int(tokenizer.convert_tokens_to_ids(self._template.end))
        # What it would add is in the template's `begin`; some trim offsets, which would hide a token that begins in the
        # prompt's last space.
        tokenizer.backend_tokenizer.post_processor = None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the ids, each part by its sha256: the tokenizer's files, the template, the special tokens."""
        template = self._template
        return {
            "tokenizer": digest(self._tokenizer.backend_tokenizer.to_str()),
            "template": digest(template.identity),
            "special_tokens": digest(template.begin, template.end, self._tokenizer.special_tokens_map, self._special),
        }

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the ids, the tokenizing library's version included."""
        import tokenizers

        return digest(self.identity, tokenizers.__version__)

    def render(self, messages: Messages) -> str:
        """The prompt: everything that precedes the first character that the model writes. Raises RowReject."""
        return self._template.prompt(messages)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def tokenize(self, messages: Messages, *responses: str) -> list[TokenizedAnswer]:
        """Tokenise each response behind the same prompt, up to the token that ends it.

        Raises RowReject: special_token_in_text (a text spells a control token), template_refuses (the chat template
        has no place for these roles), template_alters_answer (it writes more or less than the response),
        token_across_boundary (a token covers the end of the prompt and the start of the response, or the last of the
        response and its end), too_long.
        """
        texts = [m["content"] for m in messages] + list(responses)
        for special in self._special:
            if any(special in text for text in texts):
                raise RowReject("special_token_in_text", token=special)
        prompt = self.render(messages)
        texts = [prompt + answer for answer in self._template.answers(messages, prompt, responses)]
        encodings = self._tokenizer.backend_tokenizer.encode_batch(
            [text + self._template.end for text in texts], add_special_tokens=False
        )
        answers = [self._split(encoding, text, len(prompt)) for encoding, text in zip(encodings, texts, strict=True)]
        first = answers[0]
        if any(a.ids[: a.prompt_length] != first.ids[: first.prompt_length] for a in answers[1:]):
            raise RowReject("token_across_boundary", detail="the prompt's ids depend on the response behind it")
        return answers

    def _split(self, encoding: Any, text: str, boundary: int) -> TokenizedAnswer:
        ids = encoding.ids
        last = len(ids) - 1
        if ids[last] != self.eos_id or (last and encoding.token_to_chars(last - 1)[1] > len(text)):
            raise RowReject("token_across_boundary", token=encoding.tokens[last])
        # The first token that reaches into the response. Making a list of all offsets costs a tenth of the tokenising; it
        # is needed where the tokenizer dropped the response's first character.
        length = encoding.char_to_token(boundary)
        if length is None:
            length = next((i for i, (_, end) in enumerate(encoding.offsets[:last]) if end > boundary), last)
        if length < last and encoding.token_to_chars(length)[0] < boundary:
            raise RowReject("token_across_boundary", token=encoding.tokens[length])
        begin = self._template.begin
        total = len(begin) + len(ids)
        if self.settings.overlong == "drop" and total > self.settings.max_length:
            raise RowReject("too_long", tokens=total, max_length=self.settings.max_length)
        return TokenizedAnswer([*begin, *ids], len(begin) + length, text, boundary, encoding)


def load_tokenizer(source: str | Path, settings: LabelSettings, name: str) -> LabelTokenizer:
    """Load from a folder or the Hub, never running code that comes with it. Raises ConfigError, in one line.

    Without a Hub that answers, what its cache holds is taken.
    """
    # Its advice to install torch is not for those who only tokenise.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers import AutoTokenizer

    folder = Path(source).is_dir()
    if not folder and not _HUB_ID.fullmatch(str(source)):
        raise ConfigError(
            f"labels.tokenizer {source}: no such folder; give one that holds a tokenizer.json, or a Hub id"
        )
    trouble = None if folder else hub_trouble(str(source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(source), trust_remote_code=False, local_files_only=trouble is not None
        )
    except Exception as error:  # `tokenizers` raises no class of its own for a damaged file
        if trouble:
            raise ConfigError(
                f"labels.tokenizer {source}: no such folder, and the Hub can't be asked for it ({trouble}); give a folder that "
                "holds a tokenizer.json, or run again when the Hub answers"
            ) from None
        reason = one_line(error)
        raise ConfigError(f"labels.tokenizer {source}: can't be loaded as a folder or Hub id: {reason}") from None
    return LabelTokenizer(tokenizer, settings, name)


def hub_trouble(model: str) -> str | None:
    """Why the Hub gives no answer about a model, or None: one small request, where the library would try for a minute."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(model, timeout=_HUB_TIMEOUT_S)
    except HfHubHTTPError:
        return None  # an answer, which loading explains
    except Exception as error:  # the HTTP library's own errors; which library that is differs between versions
        return describe_error(error, 100)
    return None
