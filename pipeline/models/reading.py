"""A response's JSON as an Answer, in either API's shape, live or from a batch.

What becomes of a response, by the server's word for its end, in whatever case:

    stop end_turn stop_sequence eos …        a whole answer
    length max_tokens model_length …         a cut one; also without a word, when the tokens reached the limit
    none                                     a whole answer
    content_filter safety sensitive …        content_filter: a reject of its own, as is refused
    error network_error overloaded …         tried again
    anything else                            unexpected_end: a reject with the word in its evidence

Thoughts are kept apart from the text, wherever a server puts them: in fields or parts of their own, or in the text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pipeline.errors import RowReject
from pipeline.models.provider_errors import Transient, UselessAnswer, from_body, snippet, without_sent_keys
from pipeline.models.request import Answer
from pipeline.models.thoughts import split_thoughts, without_end_tokens
from pipeline.models.usage import part, with_anthropic_tokens, with_openai_tokens
from pipeline.text import replace_surrogates

_ENDS = {
    "stop": "stop end_turn stop_sequence eos eos_token end complete completed finished stop_token endoftext",
    "length": "length max_tokens model_length model_context_window_exceeded max_output_tokens max_length token_limit limit "
    "error_limit",
    "refused": "refusal",
    # And what else begins so, as Gemini's "content_filter: PROHIBITED_CONTENT".
    "content_filter": "safety sensitive recitation blocklist blocked prohibited_content spii image_safety language "
    "guardrail_intervened data_inspection_failed error_toxic",
    # At the server, which passes.
    "failed": "error abort aborted insufficient_system_resource network_error server_error internal_error "
    "internal_server_error overloaded timeout timed_out cancelled canceled load unload other",
}
_KINDS = {word: kind for kind, words in _ENDS.items() for word in words.split()}
REASONED_ONLY = "reasoning_used_all_tokens"
_MOST_LOGPROBS = 1024
_THOUGHT_LISTS = ("reasoning_details", "thinking_blocks")
_THOUGHT_FIELDS = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    *_THOUGHT_LISTS,
    "provider_specific_fields",
)
_INNER_FIELDS = ("text", "summary", "content", *_THOUGHT_FIELDS)


def read_openai(content: Any, model: str, max_tokens: int, request_id: str | None) -> Answer:
    """A chat completion as an answer. Raises UselessAnswer or Transient."""
    choices = part(content, "choices")
    counted = with_openai_tokens(Answer("", "", max_tokens, request_id=request_id), part(content, "usage"))
    if part(content, "error") or (not choices and _is_error(content)):
        raise _error(content, counted, model)
    if choices is None and (not isinstance(content, dict) or "choices" not in content):
        raise _not_an_answer(content)
    if not choices:
        # Null is Gemini's, for a prompt that its filter stops.
        raise UselessAnswer("empty_choices", counted, model=model)
    choice = choices[0]
    finish, message = _finish(choice), choice.get("message")
    if part(choice, "error"):
        raise _error(choice, counted, model, maybe_billed=True)
    if message is None and _kind(finish) == "content_filter":
        message = {}
    text, thoughts, refusal = _parts(message.get("content"))
    thoughts = "\n\n".join(filter(None, [_thoughts(message, *_THOUGHT_FIELDS), thoughts]))
    if not thoughts and any(message.get(name) for name in _THOUGHT_LISTS):
        counted = _with_hidden_thoughts(counted)
    if _kind(finish) == "stop" and (message.get("tool_calls") or message.get("function_call")):
        finish = "tool_calls"
    answer = _answer(counted, text, thoughts, finish, message.get("refusal") or refusal)
    return replace(answer, logprobs=_logprobs(part(choice, "logprobs"), answer))


def read_anthropic(content: Any, model: str, max_tokens: int, request_id: str | None) -> Answer:
    """A message as an answer. Raises UselessAnswer or Transient."""
    blocks = part(content, "content")
    if blocks is None:
        raise from_body(content, model) if _is_error(content) else _not_an_answer(content)
    counted = with_anthropic_tokens(Answer("", "", max_tokens, request_id=request_id), content.get("usage"))
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thoughts = [str(block.get("thinking") or "") for block in blocks if block["type"] == "thinking"]
    if any(block["type"] == "redacted_thinking" for block in blocks):
        counted = _with_hidden_thoughts(counted)
    finish = _word(content.get("stop_reason"))
    if _kind(finish) == "stop" and any(block["type"] == "tool_use" for block in blocks):
        finish = "tool_use"
    return _answer(counted, text, "\n\n".join(filter(None, thoughts)), finish, None)


def reread(kept: Answer) -> Answer:
    """A journalled answer as it is read now: an earlier version left thoughts in its text. Raises UselessAnswer."""
    if kept.finish not in ("stop", "length"):
        raise UselessAnswer.from_journal(kept)
    return _answer(kept, kept.text, kept.reasoning or "", kept.end or kept.finish, None)


@contextmanager
def shaped(body: str) -> Iterator[None]:
    """Reads a response whose shape no SDK checks: what isn't where it belongs becomes a Transient that quotes `body`."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
        message = f"status 200 with JSON of another shape: {snippet(body)}"
        # What it cost isn't known.
        raise Transient("malformed_answer", message, maybe_billed=True) from None


def _error(body: Any, counted: Answer, model: str, *, maybe_billed: bool = False) -> Exception:
    """Status 200 with an error: our exception for it, and for what it cost."""
    error = from_body(body, model)
    if isinstance(error, Transient):
        error.maybe_billed |= maybe_billed or counted.prompt_tokens > 0
        error.usage = counted
    if isinstance(error, RowReject) and (maybe_billed or counted.prompt_tokens):
        return UselessAnswer(error.reason, counted, **error.evidence)
    return error


def _is_error(content: Any) -> bool:
    """Whether JSON without an answer speaks of an error, in one of the places where servers put that."""
    if not isinstance(content, dict):
        return False
    said = [content.get(name) for name in ("message", "Message", "msg", "detail", "errors", "error_message")]
    named = content.get("type") == "error" or content.get("error") or content.get("base_resp")
    return bool(named) or any(isinstance(one, str | list) and one for one in said)


def _not_an_answer(content: Any) -> Transient:
    """Status 200 with something else than the API's answer, such as what proxies and login pages say."""
    body = str(content)
    html = body.lstrip().startswith("<")
    # Anything else may be what is left of an answer.
    return Transient(
        "html_answer" if html else "malformed_answer", f"status 200 with {snippet(body)!r}", maybe_billed=not html
    )


def _finish(choice: dict[str, Any]) -> str | None:
    """The word for why a choice ended. What the upstream provider said counts where a gateway makes a good end of it."""
    finish, native = _word(choice.get("finish_reason")), _word(choice.get("native_finish_reason"))
    return native if _kind(finish) == "stop" and _kind(native) in ("length", "content_filter", "refused") else finish


def _word(finish: Any) -> str | None:
    """The server's word for why an answer ended; None without one. SGLang puts it into an object."""
    if isinstance(finish, dict):
        finish = finish.get("type") or finish
    return None if finish in (None, "", "null", "None") else str(finish)


def _kind(word: str | None) -> str:
    """What that word means: stop, length, content_filter, refused, failed, or "" for what is unknown."""
    plain = (word or "stop").lower().removeprefix("finish_reason_").replace("-", "_").strip()
    return "content_filter" if plain.startswith(("content_filter", "contentfilter")) else _KINDS.get(plain, "")


def _parts(content: Any) -> tuple[str, str, str]:
    """Text, thoughts and refusal of a message's content: a string, or parts as Mistral and gateways send it."""
    if content is None or isinstance(content, str):
        return content or "", "", ""
    texts, thoughts, refusals = [], [], []
    for one in [content] if isinstance(content, dict) else _required(content, list):
        kind = str(part(one, "type") or "text")
        if isinstance(one, str):
            texts.append(one)
        elif kind in ("text", "output_text"):
            text = one["text"]
            texts.append(_required(part(text, "value") if isinstance(text, dict) else text or "", str))
        elif "think" in kind or "reason" in kind:
            thoughts.append(_thoughts(one, "thinking", "text", "reasoning"))
        elif kind == "refusal":
            refusals.append(str(one.get("refusal")))
    return "".join(texts), "\n\n".join(filter(None, thoughts)), " ".join(refusals)


def _required(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError("content of another kind")
    return value


def _thoughts(value: Any, *names: str) -> str:
    """The first thoughts in one of these members of an object, in whatever form a server's reasoning parser leaves them."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return "\n\n".join(filter(None, (_thoughts(one, *_INNER_FIELDS) for one in value)))
    if not isinstance(value, dict):
        return ""
    return next(filter(None, (_thoughts(value.get(name), *_INNER_FIELDS) for name in names)), "")


def _with_hidden_thoughts(counted: Answer) -> Answer:
    """Thoughts without a text, encrypted or redacted, were some all the same."""
    return replace(counted, reasoning_tokens=max(1, counted.reasoning_tokens))


def _answer(counted: Answer, text: str, thoughts: str, finish: str | None, refusal: Any) -> Answer:
    """Only a complete or cut text is an answer; everything else, though paid for, is a reject of its own kind."""
    said, thought = split_thoughts(text)
    text = said if said == text else said.lstrip()
    # Half a character, from a tokenizer cut in the middle of one: nothing downstream can store it. A server may repeat a key.
    both = text, "\n\n".join(filter(None, [thoughts, thought]))
    text, thoughts = (without_sent_keys(replace_surrogates(each)[0]) for each in both)
    counted = replace(counted, reasoning=thoughts.strip() or None)
    kind = "refused" if refusal else _kind(finish)
    if finish is None and 0 < counted.max_tokens <= counted.completion_tokens:
        kind = "length"
    if kind == "refused":
        raise UselessAnswer("refused", counted, answer=snippet(str(refusal or text)))
    if kind == "content_filter":
        raise UselessAnswer("content_filter", counted, answer=snippet(text), finish=snippet(str(finish), 60))
    if kind == "failed":
        message = snippet(f"status 200, and the server gave up: {finish}")
        raise Transient("server_error", message, maybe_billed=True, usage=counted)
    if not kind:
        raise UselessAnswer("unexpected_end", counted, finish=snippet(str(finish), 60), answer=snippet(text))
    if not text.strip():
        raise _without_text(counted, kind, finish)
    cleaned = without_end_tokens(text)
    end = None if finish in (None, kind) else finish
    if not cleaned.strip():
        raise UselessAnswer("empty_answer", counted, finish=finish, answer=snippet(text))
    return replace(counted, text=cleaned, finish=kind, end=end)


def _without_text(counted: Answer, kind: str, finish: str | None) -> UselessAnswer:
    """Nothing was said: because the thoughts took all tokens, which the user can mend, or for no reason that is known."""
    if kind == "stop" and not counted.reasoned:
        return UselessAnswer("empty_answer", counted, finish=finish)
    evidence = {
        "finish": finish,
        "limit": counted.max_tokens,
        "completion_tokens": counted.completion_tokens,
        "reasoning_tokens": counted.reasoning_tokens or None,
        "hint": "raise reasoning_tokens of this model's role, or lower its reasoning_effort"
        if kind == "length"
        else "the server reports all of the answer as reasoning: check its reasoning parser",
    }
    return UselessAnswer(REASONED_ONLY, counted, **evidence)


def _logprobs(value: Any, answer: Answer) -> list[list[list[Any]]] | None:
    """Of each of the answer's first tokens, itself and then its alternatives. None where there are none, or none readable."""
    content = part(value, "content")
    if not isinstance(content, list):
        return None
    if answer.reasoned:
        content = content[_tokens_before(content, answer.text) :]
    listed = ([token, *(part(token, "top_logprobs") or [])] for token in content[:_MOST_LOGPROBS])
    pairs = ([(part(t, "token"), part(t, "logprob")) for t in tokens] for tokens in listed)
    return [
        [[t, p] for t, p in pair if isinstance(t, str) and isinstance(p, float) and p <= 0] for pair in pairs
    ] or None


def _tokens_before(tokens: list[Any], text: str) -> int:
    """How many of a response's tokens, its thoughts among them, come before the text with which it ends."""
    wanted, ending = text.strip(), ""
    for place in reversed(range(len(tokens))):
        ending = str(part(tokens[place], "token") or "") + ending
        if wanted in ending:
            return place
    return 0
