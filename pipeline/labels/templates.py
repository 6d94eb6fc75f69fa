"""Templates: from a query and an answer to the text that a trainer tokenises.

That text is prompt + answer + end. The prompt is what the model is asked with; the end is the token that stops it when it
answers, so it ends the stored sequence. What a template writes behind it (ChatML's line feed) is neither generated nor
stored, and changes no token before it.

    template   begins with                  prompt                              end
    chat       what the template writes     the tokenizer's own chat template   the control token that it writes behind an
                                                                                answer; EOS where it writes nothing
    alpaca     what the tokenizer adds:     Stanford Alpaca's, which the        EOS
               a BOS, or nothing            authors' trainer uses
    plain      the same                     the turns, joined by empty lines    EOS

A chat template writes the answer of a conversation that is trained on by another branch than the prompt of one that is
sampled. So every answer is rendered in its whole conversation, and this has to be the prompt, the answer, and what the
template puts around answers; a template for which that doesn't hold is refused, and so is a row.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config.settings import LabelSettings
from pipeline.errors import ConfigError, RowReject
from pipeline.text import one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Messages = Sequence[dict[str, str]]

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
_QUERY = {"role": "user", "content": "Why is the sky blue?"}
_ANSWER = "Light scatters, and blue light most."
# Chat templates know the day by this function alone. In its place: the pinned day, or a refusal.
_DATE = (
    "{% macro strftime_now(format) %}{% if format in pinned_date %}{{ pinned_date[format] }}"
    "{% else %}{{ raise_exception('it writes the date') }}{% endif %}{% endmacro %}\n"
)
_DATE_FORMAT = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


class Template(ABC):
    """begin: ids before the prompt that the tokenizer adds itself; end: the token that ends an answer, as text."""

    begin: tuple[int, ...] = ()
    end: str

    @property
    @abstractmethod
    def identity(self) -> list[Any]:
        """Everything that decides the rendered text, JSON-serialisable."""

    @abstractmethod
    def prompt(self, messages: Messages) -> str:
        """Everything that precedes what the model writes. Raises RowReject."""

    @abstractmethod
    def answers(self, messages: Messages, prompt: str, responses: Sequence[str]) -> list[str]:
        """What stands between `prompt` and the end token when each of `responses` is trained on. Raises RowReject."""


class TextTemplate(Template):
    """alpaca and plain: text put together, then tokenised with what the tokenizer adds to every text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: LabelSettings) -> None:
        self.end = str(tokenizer.eos_token)
        self._settings = settings
        probe = tokenizer.backend_tokenizer.encode(_ANSWER, add_special_tokens=True)
        first = probe.special_tokens_mask.index(0)
        self.begin = tuple(probe.ids[:first])

    @property
    def identity(self) -> list[Any]:
        return [self._settings.template, _ALPACA, self._settings.system or None]

    def prompt(self, messages: Messages) -> str:
        query = "\n\n".join(m["content"] for m in with_system(messages, self._settings.system))
        return f"{query}\n\n" if self._settings.template == "plain" else _ALPACA.replace("{instruction}", query, 1)

    def answers(self, messages: Messages, prompt: str, responses: Sequence[str]) -> list[str]:
        return list(responses)


class ChatTemplate(Template):
    """The tokenizer's own chat template. Raises ConfigError when its answers can't be told from its prompts."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, settings: LabelSettings) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._source = str(tokenizer.get_chat_template())
        # Half of a rendering's time: not for templates that can't know the day.
        self._dated = _DATE + self._source if "strftime_now" in self._source else self._source
        formats = {match[2] for match in _DATE_FORMAT.finditer(self._source)} if settings.date else set()
        self._variables = {
            **settings.template_options,
            "pinned_date": {form: settings.date.strftime(form) for form in sorted(formats) if settings.date},
        }
        try:
            self._lead, self._tail = self._around(self.prompt([_QUERY]))
        except RowReject as reject:
            raise ConfigError(_unusable(reject.evidence["error"])) from None
        self._before, self.end = self._ending()

    @property
    def identity(self) -> list[Any]:
        return ["chat", self._source, self._variables, self._settings.system or None]

    def prompt(self, messages: Messages) -> str:
        return self._render([messages], add_generation_prompt=True)[0]

    def answers(self, messages: Messages, prompt: str, responses: Sequence[str]) -> list[str]:
        wholes = self._answered(messages, responses)
        return [self._answer(prompt, *pair) for pair in zip(responses, wholes, strict=True)]

    def _answer(self, prompt: str, response: str, whole: str) -> str:
        """`whole`: the conversation that ends with the response, as the template writes it."""
        opening = prompt + self._lead
        if whole == opening + response + self._tail:
            return self._lead + response + self._before
        written = whole[len(opening) : len(whole) - len(self._tail)]
        # Some templates strip white space around an answer; the trainer then never sees it.
        if whole == opening + written + self._tail and written in response and written.strip() == response.strip():
            return self._lead + written + self._before
        raise RowReject("template_alters_answer", rendered=whole[len(prompt) :][:200])

    def _around(self, prompt: str) -> tuple[str, str]:
        """What the template writes before and behind an answer."""
        (whole,) = self._answered([_QUERY], [_ANSWER])
        lead, found, tail = whole.removeprefix(prompt).partition(_ANSWER)
        if not whole.startswith(prompt) or not found:
            raise ConfigError(
                "its chat template writes an answer otherwise than behind its generation prompt, so what is trained on "
                f"differs from what is sampled ({_snippet(prompt)} against {_snippet(whole)}): set "
                "labels.template_options as the template wants it, or labels.template=alpaca"
            )
        return lead, tail

    def _ending(self) -> tuple[str, str]:
        """What stands between an answer and its end token, and that token."""
        # Some vocabularies have runs of spaces among their added tokens: those end nothing.
        added = [str(token) for token in self._tokenizer.added_tokens_decoder.values() if str(token).strip()]
        tokens = sorted(added, key=len, reverse=True)
        control = re.search("|".join(map(re.escape, tokens)), self._tail) if tokens else None
        if control:
            return self._tail[: control.start()], control[0]
        if self._tail:
            raise ConfigError(
                f"its chat template ends an answer with {_snippet(self._tail)} and no control token, so a model trained "
                "on it never stops: use a template that writes EOS behind an answer, or labels.template=alpaca"
            )
        return "", str(self._tokenizer.eos_token)

    def _answered(self, messages: Messages, responses: Sequence[str]) -> list[str]:
        """The conversation with each of the responses, whole."""
        wholes = [[*messages, {"role": "assistant", "content": response}] for response in responses]
        return self._render(wholes, add_generation_prompt=False)

    def _render(self, conversations: Sequence[Messages], *, add_generation_prompt: bool) -> list[str]:
        # All in one call: half of a call's time is spent before the first conversation.
        try:
            rendered: list[str] = self._tokenizer.apply_chat_template(
                [with_system(messages, self._settings.system) for messages in conversations],
                chat_template=self._dated,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
            return rendered
        except Exception as error:  # it comes with a model, and may do anything that the sandbox lets it
            raise RowReject("template_refuses", error=one_line(error, 1000)) from None


def template_of(tokenizer: PreTrainedTokenizerFast, settings: LabelSettings) -> Template:
    """Raises ConfigError when the tokenizer has no chat template although one is asked for, or one that can't be used."""
    if settings.template != "chat":
        return TextTemplate(tokenizer, settings)
    if not tokenizer.chat_template:
        raise ConfigError("has no chat template; set labels.template=alpaca or plain")
    return ChatTemplate(tokenizer, settings)


def with_system(messages: Messages, system: str | None) -> list[dict[str, str]]:
    """The messages as the policy was asked with them: a system prompt before queries that have none."""
    if system and messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return list(messages)


def _unusable(error: str) -> str:
    if "it writes the date" in error:
        return (
            "its chat template writes today's date, so the ids would depend on the day: pin it with "
            "labels.date=2026-01-31 (any day) and let the trainer write the same"
        )
    return f"its chat template can't be rendered: {error}"


def _snippet(text: str) -> str:
    return repr(text if len(text) <= 60 else f"…{text[-60:]}")
