"""Templates: from a query and an answer to the text that a trainer tokenises.

That text is prompt + answer + end: what the model is called with, what it writes, and the token that stops it. What a template
writes behind that (ChatML's line feed) is neither generated nor stored.

    template   begins with                  prompt                              end
    chat       what the template writes     the tokenizer's own chat template   the control token that it writes behind an
                                                                                answer; EOS where it writes nothing
    alpaca     what the tokenizer adds:     Stanford Alpaca's, which the        EOS
               a BOS, or nothing            authors' trainer uses
    plain      the same                     the turns, joined by empty lines    EOS

Thoughts that are context (`labels.reasoning`) stand before the answer, as the template writes them behind its generation prompt
or, where it has no place for them, between <think> tags; they count as a part of the prompt.

A chat template writes an answer by another branch than a prompt. So every answer is rendered in its whole conversation, which
has to be the prompt, the answer, and what the template puts around answers; else the template is a ConfigError, or the row a
reject.
"""

import re
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
# Chat templates get the date from this function alone. In its place: the pinned date, or an error.
_NO_DATE = "it writes the date"
_DATE = (
    "{% macro strftime_now(format) %}{% if format in pinned_date %}{{ pinned_date[format] }}"
    "{% else %}{{ raise_exception('it writes the date') }}{% endif %}{% endmacro %}\n"
)
_DATED = (
    "its chat template writes today's date, so the ids would depend on the day: pin it with labels.date=2026-01-31 (any day) "
    "and let the trainer write the same{option}"
)
# As Llama 3's: an option, which exports hand to trainers too.
_DATE_STRING = """, or give it with labels.template_options={"date_string": "26 Jul 2024"}"""
# Qwen's and most others' name for a turn's thoughts, gpt-oss's, vLLM's.
_THOUGHT_FIELDS = ("reasoning_content", "thinking", "reasoning")
_OPENED = re.compile(r"<think>\s*\Z")
_DATE_FORMAT = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")


class TextTemplate:
    """alpaca and plain. begin: ids before the prompt that the tokenizer adds itself; end: the token that ends an answer."""

    dated = False
    refuses = False

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", settings: LabelSettings) -> None:
        self._settings = settings
        self.end = str(tokenizer.eos_token)
        probe = tokenizer.backend_tokenizer.encode(_ANSWER, add_special_tokens=True)
        self.begin = tuple(probe.ids[: probe.special_tokens_mask.index(0)])

    @property
    def identity(self) -> list[Any]:
        """Everything that determines the rendered text, JSON-serialisable."""
        return [self._settings.template, _ALPACA, self._settings.system or None]

    def prompt(self, messages: Messages) -> str:
        """Everything that precedes what the model writes. Raises RowReject."""
        query = "\n\n".join(m["content"] for m in with_system(messages, self._settings.system))
        return f"{query}\n\n" if self._settings.template == "plain" else _ALPACA.replace("{instruction}", query, 1)

    def answer(self, messages: Messages, prompt: str, response: str, thoughts: str | None) -> tuple[str, str]:
        """What stands between `prompt` and the end token: the thoughts, and what is trained on. Raises RowReject."""
        return _written_out(thoughts), response


class ChatTemplate:
    """The tokenizer's own chat template. Raises ConfigError when it is unusable."""

    begin: tuple[int, ...] = ()

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", settings: LabelSettings) -> None:
        self._tokenizer = tokenizer
        self._settings = settings
        self._source = str(tokenizer.get_chat_template())
        self.refuses = "raise_exception" in self._source  # whether it may refuse a conversation
        formats = sorted({match[2] for match in _DATE_FORMAT.finditer(self._source)})
        pinned = {form: settings.date.strftime(form) for form in formats} if settings.date else {}
        self.dated = bool(pinned)  # whether a pinned date is written
        self._variables = {**settings.template_options, "pinned_date": pinned}
        self._opened = ""
        try:
            self._lead, self._tail = self._around_answers()
        except RowReject as reject:
            error = reject.evidence["error"]
            raise ConfigError(
                _DATED.format(option=_DATE_STRING if "date_string" in self._source else "")
                if _NO_DATE in error
                else f"its chat template can't be rendered: {error}"
            ) from None
        self._before_end, self.end = self._ending()

    @property
    def identity(self) -> list[Any]:
        return ["chat", self._source, self._variables, self._settings.system or None]

    def prompt(self, messages: Messages) -> str:
        return self._render(messages, add_generation_prompt=True)

    def answer(self, messages: Messages, prompt: str, response: str, thoughts: str | None) -> tuple[str, str]:
        whole = self._whole(messages, response)
        opening = prompt.removesuffix(self._opened) + self._lead
        written = whole[len(opening) : len(whole) - len(self._tail)]
        # Some templates strip white space around an answer; the trainer then never sees it.
        same = written in response and written.strip() == response.strip()
        if whole != opening + written + self._tail or not same:
            raise RowReject("template_alters_answer", rendered=whole[len(prompt) :][:200])
        if context := self._context(messages, prompt, response, written, thoughts):
            return context, written + self._before_end
        return _written_out(thoughts, self._opened), self._lead + written + self._before_end

    def _context(self, messages: Messages, prompt: str, response: str, written: str, thoughts: str | None) -> str:
        """What the template itself writes before an answer with these thoughts; "" when it leaves them out."""
        if not thoughts:
            return ""
        whole, ending = self._whole(messages, response, thoughts), written + self._tail
        context = whole[len(prompt) : len(whole) - len(ending)]
        return context if whole == prompt + context + ending and thoughts in context else ""

    def _around_answers(self) -> tuple[str, str]:
        """What the template writes before and behind an answer."""
        prompt, whole = self.prompt([_QUERY]), self._whole([_QUERY], _ANSWER)
        if self._settings.reasoning == "context" and not whole.startswith(prompt) and (tag := _OPENED.search(prompt)):
            # The prompt opens the thoughts, which the template leaves out behind it.
            self._opened = tag[0]
            prompt = prompt.removesuffix(self._opened)
        lead, answer, tail = whole.removeprefix(prompt).partition(_ANSWER)
        if not whole.startswith(prompt) or not answer:
            raise ConfigError(
                "its chat template writes an answer otherwise than behind its generation prompt, so what is trained on "
                f"differs from what is sampled ({_snippet(prompt)} against {_snippet(whole)}): set "
                "labels.template_options as the template wants it, labels.reasoning=context where the prompt opens the "
                "model's thoughts, or labels.template=alpaca"
            )
        return lead, tail

    def _ending(self) -> tuple[str, str]:
        """What stands between an answer and its end token, and that token."""
        # Some vocabularies have runs of spaces among their added tokens: those end nothing.
        added = [str(token) for token in self._tokenizer.added_tokens_decoder.values() if str(token).strip()]
        longest_first = sorted(added, key=len, reverse=True)
        control = re.search("|".join(map(re.escape, longest_first)), self._tail) if added else None
        if control:
            return self._tail[: control.start()], control[0]
        if self._tail:
            raise ConfigError(
                f"its chat template ends an answer with {_snippet(self._tail)} and no control token, so a model trained "
                "on it never stops: use a template that writes EOS behind an answer, or labels.template=alpaca"
            )
        return "", str(self._tokenizer.eos_token)

    def _whole(self, messages: Messages, response: str, thoughts: str | None = None) -> str:
        """The conversation that ends with the response."""
        turn = {"role": "assistant", "content": response}
        if thoughts:
            turn |= dict.fromkeys(_THOUGHT_FIELDS, thoughts)
        return self._render([*messages, turn], add_generation_prompt=False)

    def _render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                with_system(messages, self._settings.system),
                chat_template=_DATE + self._source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except Exception as error:  # it comes with a model, and may do anything that the sandbox lets it
            raise RowReject("template_refuses", error=one_line(error, 1000)) from None
        return str(rendered)


def template_of(tokenizer: "PreTrainedTokenizerFast", settings: LabelSettings) -> TextTemplate | ChatTemplate:
    """The template that `settings` name. Raises ConfigError for a missing or unusable chat template."""
    if settings.template != "chat":
        return TextTemplate(tokenizer, settings)
    if not tokenizer.chat_template:
        raise ConfigError("has no chat template; set labels.template=alpaca or plain")
    return ChatTemplate(tokenizer, settings)


def with_system(messages: Messages, system: str | None) -> list[dict[str, str]]:
    """The messages as the policy gets them: with a system prompt before queries that have none."""
    if system and messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return list(messages)


def _written_out(thoughts: str | None, opened: str = "") -> str:
    """Thoughts as most models write them. opened: the tag that the prompt ends with."""
    if not thoughts and not opened:
        return ""
    opening = "" if opened else "<think>\n"
    return f"{opening}{thoughts or ''}\n</think>\n\n"


def _snippet(text: str) -> str:
    return repr(text if len(text) <= 60 else f"…{text[-60:]}")
