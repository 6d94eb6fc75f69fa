"""From texts to the exact ids that a trainer feeds: rendered prompt, response, EOS.

The whole text is tokenised once, and the boundary between prompt and response is found by character offsets: tokenising the
prompt alone can put labels one token off. A pair for which that boundary falls inside a token is rejected, never shifted.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config.settings import LabelSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.labels.templates import Messages, template_of
from pipeline.schema import digest
from pipeline.text import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# A word: word characters with apostrophes inside, or white space, or anything else. Not the tokenizer's own words: those of
# Llama 2's family don't split a text into words.
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+|\s+")

# What every template is probed with: answers of a word, of several, and of a digit.
_QUERY = [
    {"role": "user", "content": "Why is the sky blue?"},
    {"role": "assistant", "content": "Light scatters."},
    {"role": "user", "content": "And at dusk?"},
]
_ANSWERS = ("Then it is red, as the way is long.", "1. Dust. 2. Distance.", "No")


def token_words(text: str, start: int, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The number, from 1, of the word of text[start:] to which each token belongs: that of its first visible character, or of
    its first character when all of it is white space. offsets: start and end of each token in `text`; none before `start`.

    >>> token_words("> it's so", 2, [(2, 4), (4, 6), (6, 9)])
    [1, 1, 3]
    """
    word_starts = [word.start() for word in _WORD.finditer(text, start)]
    numbers = []
    for begin, end in offsets:
        visible = end - len(text[begin:end].lstrip())
        numbers.append(bisect_right(word_starts, visible if visible < end else begin))
    return numbers


@dataclass(frozen=True, slots=True)
class TokenizedAnswer:
    """One sequence as a trainer feeds it."""

    ids: list[int]  # prompt, response, EOS
    prompt_length: int
    text: str  # what was tokenised, without its EOS
    boundary: int  # where the response begins in `text`
    offsets: list[tuple[int, int]]  # start and end in `text` of each response token but the EOS

    @property
    def words(self) -> list[int]:
        """Word index of each response token; the EOS is a word of its own."""
        words = token_words(self.text, self.boundary, self.offsets)
        return [*words, max(words, default=0) + 1]

    @property
    def pieces(self) -> list[str]:
        """The text of each response token. A character that several tokens share is the first one's; the EOS has none."""
        pieces, done = [], self.boundary
        for _, end in self.offsets:
            pieces.append(self.text[done : max(done, end)])
            done = max(done, end)
        # Text behind the last token, and text that the tokenizer has no token for, belongs to the last piece.
        rest = self.text[done:]
        return [*pieces[:-1], pieces[-1] + rest, ""] if pieces else [rest]

    @property
    def response_ids(self) -> list[int]:
        return self.ids[self.prompt_length :]


class LabelTokenizer:
    """A fast tokenizer with the template that turns queries into prompts.

    eos_id: the token that ends every response; with a chat template the one that it writes behind an answer. Raises
    ConfigError when the tokenizer has no EOS, no offsets, or no usable template.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", settings: LabelSettings, name: str) -> None:
        self.name = name
        self.settings = settings
        self._tokenizer = tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError(f"labels.tokenizer {name}: only fast tokenizers give the offsets that labels need")
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"labels.tokenizer {name}: has no EOS token, which must end every response")
        self._special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._encoder = tokenizer.backend_tokenizer
        # Rows of the encoder's output must not depend on what other rows were in the batch.
        self._encoder.no_truncation()
        self._encoder.no_padding()
        try:
            self._encoder.encode(_ANSWERS[0])
        except Exception as error:  # the library raises no class of its own
            raise ConfigError(f"labels.tokenizer {name}: can't encode plain text: {one_line(error, 200)}") from None
        try:
            self._template = template_of(tokenizer, settings)
        except ConfigError as error:
            raise ConfigError(f"labels.tokenizer {name}: {error}") from None
        if self._template.end not in self._special:
            self._special.append(self._template.end)
        self.eos_id = int(tokenizer.convert_tokens_to_ids(self._template.end))
        # What it would add is in the template's `begin`; some trim offsets, which would hide a token that begins in the
        # prompt's last space.
        self._encoder.post_processor = None

    def probe(self) -> None:
        """Raise ConfigError for a template that would lose every row of one turn, or of several: seen in their tokens."""
        for query in (_QUERY[-1:], _QUERY):
            try:
                self.tokenize(query, *_ANSWERS)
            except RowReject as reject:
                # Roles that a template refuses, and lengths, are the row's own matter.
                if reject.reason in ("token_across_boundary", "template_alters_answer"):
                    what = ", ".join(f"{key} {value!r}" for key, value in reject.evidence.items())
                    raise ConfigError(
                        f"labels.tokenizer {self.name}: with its template no answer keeps its place behind the prompt "
                        f"({reject.reason}: {what}); set labels.template_options as the template wants it, or "
                        "labels.template=alpaca"
                    ) from None

    @property
    def dated(self) -> bool:
        """Whether prompts have the pinned date, where another program would write today's."""
        return self._template.dated

    @property
    def refusals(self) -> str | None:
        """Digest of a template that may refuse a conversation, for its roles or their order; None where none can be refused."""
        return digest(self._template.identity) if self._template.refuses else None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the ids, each part by its sha256: the tokenizer's files, the template, the special tokens."""
        template = self._template
        return {
            "tokenizer": digest(self._encoder.to_str()),
            "template": digest(template.identity),
            "special_tokens": digest(template.begin, template.end, self._tokenizer.special_tokens_map, self._special),
        }

    @property
    def fingerprint(self) -> str:
        """sha256 over all that determines the ids, the tokenizing library's version included."""
        import tokenizers

        return digest(self.identity, tokenizers.__version__)

    def render(self, messages: Messages) -> str:
        """The prompt: everything that precedes the first character that the model writes. Raises RowReject."""
        return self._template.prompt(messages)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def tokenize(self, messages: Messages, *responses: str, reasoning: str | None = None) -> list[TokenizedAnswer]:
        """Tokenise each response behind the same prompt, up to the token that ends it.

        reasoning: what the policy thought before it answered; where the settings have it as context, it ends the prompt.

        Raises RowReject: special_token_in_text (a text spells a control token), template_refuses (the chat template
        has no place for these roles), template_alters_answer (it writes more or less than the response),
        token_across_boundary (a token covers the end of the prompt and the start of the response, or the last of the
        response and its end), too_long.
        """
        thoughts = reasoning if self.settings.reasoning == "context" else None
        texts = [m["content"] for m in messages] + list(responses) + [thoughts or ""]
        for special in self._special:
            if any(special in text for text in texts):
                raise RowReject("special_token_in_text", token=special)
        prompt = self.render(messages)
        answers = []
        for response in responses:
            begins = self._template.answer(messages, prompt, response, thoughts)
            answers.append(self._encode(prompt + "".join(begins), len(prompt) + len(begins[0])))
        first = answers[0]
        if any(a.ids[: a.prompt_length] != first.ids[: first.prompt_length] for a in answers[1:]):
            raise RowReject("token_across_boundary", detail="the prompt's ids depend on the response behind it")
        return answers

    def texts(self, messages: Messages, *responses: str) -> tuple[str, list[str]]:
        """The exact text of the prompt, with what the tokenizer puts before it, and of each response with its end token.

        Raises RowReject: those of `tokenize`.
        """
        answers = self.tokenize(messages, *responses)
        prompt = self.decode(self._template.begin) + answers[0].text[: answers[0].boundary]
        return prompt, [answer.text[answer.boundary :] + self._template.end for answer in answers]

    def tokenize_published(self, row: dict[str, Any]) -> list[TokenizedAnswer]:
        """Initial and revised answer of a published row; empty when their ids are not the stored ones."""
        try:
            thoughts = row.get("initial_reasoning")
            answers = self.tokenize(row["messages"], row["initial"], row["revised"], reasoning=thoughts)
        except RowReject:
            return []
        return answers if [a.ids for a in answers] == [row["initial_input_ids"], row["revised_input_ids"]] else []

    def _encode(self, text: str, boundary: int) -> TokenizedAnswer:
        encoding = self._encoder.encode(text + self._template.end, add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        last = len(ids) - 1
        if ids[last] != self.eos_id or (last and offsets[last - 1][1] > len(text)):
            raise RowReject("token_across_boundary", token=encoding.tokens[last])
        # The first token that reaches into the response.
        first = next((i for i, (_, end) in enumerate(offsets[:last]) if end > boundary), last)
        if first < last and offsets[first][0] < boundary:
            raise RowReject("token_across_boundary", token=encoding.tokens[first])
        begin = self._template.begin
        total = len(begin) + len(ids)
        if self.settings.overlong == "drop" and total > self.settings.max_length:
            raise RowReject("too_long", tokens=total, max_length=self.settings.max_length)
        return TokenizedAnswer([*begin, *ids], len(begin) + first, text, boundary, offsets[first:last])
