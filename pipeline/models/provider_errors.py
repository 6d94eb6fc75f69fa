"""What can go wrong with a call, whichever SDK or gateway reports it.

    Transient          worth another try: 408 409 424 425 429 498 499 5xx, connection, time-out, a 200 that is no answer
    UselessAnswer      a RowReject that was paid for: refusal, content filter, empty
    RowReject          this row alone: 400 404 413 422, moderation (also as 403), a firewall's page
    ProviderStopped    every call: 401 403, out of money (as 400, 402, 403, 412, 429 or 200), a daily limit

The words of an error count before its status, see `error_words.py`. Both SDKs come from one generator: their exceptions share
names and attributes. They never leave `models/`: they hold the request, and with it the key.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, Self

from pipeline.config import addresses
from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.error_words import Words, read_words, wait_by_headers
from pipeline.models.request import Answer
from pipeline.text import one_line, visible

# A server's absurd Retry-After (a year) is cut to this, as is that of an outage.
LONGEST_WAIT_S = 120.0
# A limit that is reached for longer than this stops the run. Above a month it is no limit's.
LONG_LIMIT_S, _ABSURD_S = 600.0, 32 * 86_400.0
_TRANSIENT = {408: "timed_out", 429: "rate_limited"} | dict.fromkeys((409, 424, 425, 498, 499), "server_error")
# Statuses that an empty account is reported with, and those that a firewall's page has.
_MONEY_STATUSES = (400, 402, 403, 412, 422, 429)
_BLOCKED = (403, 406)
# Of a gateway that lost the model's answer or waited no longer: the model behind it may have gone on, and been billed.
_GATEWAYS = (408, 499, 502, 504, 520, 524, 598, 599)
_TIMED_OUT = re.compile(r"time[sd]?[- ]?out", re.IGNORECASE)
# Answers that no other try and no higher max_tokens would change.
FINAL = ("refused", "content_filter")
_NUMBERED = re.compile(r"\S*\d\S*")
# What an error says when it comes with status 200, or as the result of a request in a batch.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# httpx's and aiohttp's names for a connection that was never established.
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "ClientConnectorError", "ConnectionRefusedError", "gaierror")
# While a model is loading, it is looked at this often.
_LOOK_AGAIN_S = 5.0
GO_ON = "Nothing is published. Mend the cause and run the same command again: what was paid for is kept"
_RUN_AGAIN = "then run the same command again: nothing that was paid for is lost"
RUN_AGAIN_LATER = f"Wait, {_RUN_AGAIN}"


_hidden: set[str] = set()


class Transient(Exception):
    """Worth another try. `reason` becomes the row's reject reason after the last attempt.

    retry_after: seconds that the server asks to wait, here at most LONGEST_WAIT_S. maybe_billed: the call was sent and
    its cost is unknown. usage: an Answer without text, where the server counts tokens all the same. loading: the server is
    not ready yet, so a try costs neither money nor patience. held_as: the name under which the ledger of batches holds its
    worst case, until the journal has it.
    """

    held_as: str | None = None

    def __init__(
        self,
        reason: str,
        message: str,
        retry_after: float | None = None,
        *,
        status: int | None = None,
        maybe_billed: bool = False,
        loading: bool = False,
        usage: Answer | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = None if retry_after is None else min(retry_after, LONGEST_WAIT_S)
        self.status = status
        self.maybe_billed = maybe_billed
        self.loading = loading
        self.usage = usage


class UselessAnswer(RowReject):
    """An answer that is paid for and can't be used. `usage`: an Answer without text that holds the token counts."""

    def __init__(self, reason: str, usage: Answer, **evidence: Any) -> None:
        super().__init__(reason, **evidence)
        self.usage = usage

    def to_journal(self) -> Answer:
        """For the journal, so that it is not paid for again. `finish` is the reason, `text` the evidence as JSON."""
        return replace(self.usage, finish=self.reason, text=json.dumps(self.evidence))

    @classmethod
    def from_journal(cls, answer: Answer) -> Self:
        return cls(answer.finish, answer, **json.loads(answer.text))


def translate(sdk: ModuleType, error: Exception, model: str) -> Exception:
    """Our exception for whatever the SDK raised. By status code, not class: some statuses have no class of their own."""
    status = getattr(error, "status_code", None)
    if isinstance(error, sdk.APIStatusError) and isinstance(status, int):
        headers, words = error.response.headers, read_words(error.response.text)
        if 300 <= status < 400:
            # Not followed: the key goes nowhere else.
            words = Words(f"it redirects to {headers.get('location')}: give that address, up to /v1")
        return from_status(status, words, model, wait_s=wait_by_headers(headers))
    if isinstance(error.__cause__, Transient):  # by `limit_body`, inside the SDK
        return error.__cause__
    if isinstance(error, (ValueError, RecursionError)):  # json.JSONDecodeError, bare
        body = str(getattr(error, "doc", ""))
        html = body.lstrip().startswith("<")
        message = f"status 200 with broken JSON: {snippet(body) or one_line(error)}"
        return Transient("html_answer" if html else "malformed_answer", message, maybe_billed=not html)
    # One backend raises APITimeoutError for a refused connection too; the chain of causes shows the difference.
    causes = list(_causes(error))
    sent = not any(type(cause).__name__ in _NEVER_SENT for cause in causes)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return Transient("timed_out", "no answer within the time-out", maybe_billed=sent)
    if isinstance(error, sdk.APIError):
        return Transient("connection_lost", snippet(f"connection: {error.__cause__ or error}"), maybe_billed=sent)
    return error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def from_status(status: int, words: Words, model: str, *, wait_s: float | None = None) -> Exception:
    """Our exception for a refusal of a call, or of one request in a batch."""
    message = snippet(words.text, 300) or "no words"
    said = f"status {status}: {message}"
    if status == 402 or (status in _MONEY_STATUSES and words.out_of_money):
        return ProviderStopped(f"{model}: the account is out of money or credit ({said}). Top it up, {_RUN_AGAIN}")
    if status == 401 or words.wrong_key or (status == 403 and not words.is_page and not words.moderated):
        return ProviderStopped(
            f"{model}: the provider refuses every call ({said}). Check the API key in the environment, "
            f"its access to this model and its credit, {_RUN_AGAIN}"
        )
    wait_s = words.wait_s if wait_s is None else wait_s
    if (status in _TRANSIENT or status >= 500) and not words.too_large:
        if status == 429 and (wait := _long_wait(words, wait_s)):
            return ProviderStopped(f"{model}: a limit is reached {wait} ({said}). {RUN_AGAIN_LATER}")
        if status == 503 and words.loading:
            return Transient("server_error", said, min(wait_s or _LOOK_AGAIN_S, _LOOK_AGAIN_S), loading=True)
        billed = status in _GATEWAYS or (status >= 500 and bool(_TIMED_OUT.search(message)))
        return Transient(_TRANSIENT.get(status, "server_error"), said, wait_s, status=status, maybe_billed=billed)
    blocked = status in _BLOCKED and words.is_page
    reason = "blocked" if blocked else "content_filter" if words.moderated else "bad_request"
    return RowReject(reason, model=model, status=status, error=message)


def from_body(body: Any, model: str) -> Exception:
    """Our exception for an error that comes with status 200, or as a result of a batch: its codes stand for the status."""
    words = read_words(body)
    codes = words.codes.lower().split()
    numbers = [int(code) for code in codes if code.isdigit() and 400 <= int(code) < 600]
    known = [_STATUS_OF_TYPE[code] for code in codes if code in _STATUS_OF_TYPE]
    row_alone = 400 if words.out_of_money or words.moderated else 503 if words.loading else 500
    return from_status(next(iter([*numbers, *known]), row_alone), words, model)


def _long_wait(words: Words, wait_s: float | None) -> str:
    """How long a limit of days lasts, in words; empty for one that a run can wait for."""
    if wait_s is not None and wait_s >= _ABSURD_S:
        wait_s = None
    if wait_s is not None and wait_s > (LONGEST_WAIT_S if words.daily else LONG_LIMIT_S):
        at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + wait_s))
        return f"for {wait_s / 3600:.1f} hours, until {at}"
    # Gemini announces a short wait with a limit of the day too.
    unknown = wait_s is None or "perday" in words.codes.lower()
    return "for the day" if words.daily and unknown else ""


def cause_of(reason: str, evidence: Mapping[str, Any]) -> str | None:
    """What made a call fail, the same for rows that failed alike; None for a reject that is the row's own matter.

    Numbers differ between rows: those of tokens, requests, times.
    """
    if reason in FINAL or not ("model" in evidence or (reason == "bad_reward" and "error" in evidence)):
        return None
    return f"{reason} {_NUMBERED.sub('#', str(evidence.get('error', '')))[:80]}"


def describe(reason: str, evidence: Mapping[str, Any]) -> str:
    """A failed call's reject in words."""
    status = f"status {evidence['status']}: " if "status" in evidence else ""
    said = evidence.get("error") or ", ".join(f"{k}={v}" for k, v in evidence.items() if k != "model")
    return f"{reason} ({status}{snippet(str(said), 300)})"


def reason_of(error: Exception) -> str:
    """One line on why a call failed; a reject's own text is its reason alone."""
    return str(error.evidence.get("error", error)) if isinstance(error, RowReject) else str(error)


def hide(key: str) -> None:
    """Strike this key out of all texts, whatever its variable is called."""
    if len(key) >= 8:
        _hidden.add(key)


def without_sent_keys(text: str) -> str:
    """The text with the keys that models are called with struck out."""
    for key in _hidden:
        text = text.replace(key, "[key]")
    return text


def without_keys(text: str) -> str:
    """The text with the values of the environment's API keys and tokens, and the queries of addresses, struck out."""
    text = without_sent_keys(text)
    for name, value in os.environ.items():
        if name.endswith(("_API_KEY", "_TOKEN")) and len(value) >= 8:
            text = text.replace(value, "[key]")
    for secret in addresses.secrets():
        text = text.replace(secret, "[key]")
    return text


def snippet(text: str, length: int = 160) -> str:
    """One short line of any text, controls visible, without keys: gateways repeat the one that was sent."""
    return one_line(visible(one_line(without_keys(text), length)), length)
