"""What can go wrong with a call, whichever SDK or gateway reports it.

    Transient          worth another try: 408 409 429 5xx, connection, time-out, a 200 that is no answer
    UselessAnswer      a RowReject that was paid for: refusal, content filter, empty
    RowReject          this row alone: 400 404 422
    ProviderStopped    every call: 401 402 403, no quota left

Both SDKs come from one generator, so their exceptions share names and attributes; `translate` serves both. SDK exceptions
never leave `models/`: they hold the request, and with it the key.
"""

import email.utils
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from types import ModuleType
from typing import Any, Self

from pipeline.errors import ProviderStopped, RowReject
from pipeline.models.answer import Answer
from pipeline.text import one_line, replace_surrogates

# A server's absurd Retry-After (hours) is cut to this.
LONGEST_WAIT_S = 120.0
_TRANSIENT = {408: "timed_out", 409: "server_error", 429: "rate_limited"}
# A gateway's time-out: the model behind it may have gone on, and been billed.
_GATEWAY_TIMEOUTS = (504, 524)
# Azure's and OpenAI's codes for a prompt that their filter stops.
_FILTERED = ("content_filter", "content_policy_violation")
# httpx's and aiohttp's names for a connection that was never established.
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "ClientConnectorError", "ConnectionRefusedError", "gaierror")


_hidden: set[str] = set()


class Transient(Exception):
    """Worth another try. `reason` becomes the row's reject reason after the last attempt.

    retry_after: seconds that the server asks to wait, here at most LONGEST_WAIT_S. maybe_billed: the call was sent and
    its cost is unknown.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        retry_after: float | None = None,
        *,
        status: int | None = None,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = None if retry_after is None else min(retry_after, LONGEST_WAIT_S)
        self.status = status
        self.maybe_billed = maybe_billed


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
        code = getattr(error, "code", None) or getattr(error, "type", None)
        return from_status(status, code, _message(error), model, wait_s=retry_after(error.response.headers))
    if isinstance(error, (ValueError, RecursionError)):  # json.JSONDecodeError, bare
        body = snippet(getattr(error, "doc", None) or "")
        return Transient("malformed_answer", f"status 200 with broken JSON: {body}", maybe_billed=True)
    if isinstance(error, sdk.APIResponseValidationError):
        return Transient("malformed_answer", "status 200 with JSON of another shape", maybe_billed=True)
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


def from_status(status: int, code: str | None, message: str, model: str, *, wait_s: float | None = None) -> Exception:
    """Our exception for a refusal of a call, or of one request in a batch."""
    message = snippet(f"{code or ''} {message}")
    if status in (401, 402, 403) or code == "insufficient_quota":
        return ProviderStopped(
            f"{model}: the provider refuses every call (status {status}: {message}). Check the API key in the environment, "
            "its access to this model and its credit, then run the same command again: nothing that was paid for is lost"
        )
    if status in _TRANSIENT or status >= 500:
        reason = _TRANSIENT.get(status, "server_error")
        billed = status in _GATEWAY_TIMEOUTS
        return Transient(reason, f"status {status}: {message}", wait_s, status=status, maybe_billed=billed)
    reason = "content_filter" if code in _FILTERED else "bad_request"
    return RowReject(reason, model=model, status=status, error=message)


def _message(error: Any) -> str:
    """The provider's own words, without the body that some SDKs put around them."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error", body)
    return str(inner.get("message") or error.message) if isinstance(inner, dict) else str(error.message)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or a date, 0 if past); None without a readable one."""
    milliseconds, text = _seconds(headers.get("retry-after-ms")), headers.get("retry-after")
    if milliseconds is not None:
        return milliseconds / 1000
    seconds = _seconds(text)
    if seconds is None and text:
        with suppress(ValueError, TypeError, OverflowError):
            return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return seconds


def _seconds(text: str | None) -> float | None:
    with suppress(ValueError):
        number = float(text or "")
        # NaN compares as false.
        return number if number >= 0 else None
    return None


def reason_of(error: Exception) -> str:
    """One line on why a call failed; a reject's own text is its reason alone."""
    return str(error.evidence.get("error", error)) if isinstance(error, RowReject) else str(error)


def hide(key: str) -> None:
    """Strike this key out of all texts, whatever its variable is called."""
    if len(key) >= 8:
        _hidden.add(key)


def without_keys(text: str) -> str:
    """The text with the values of the environment's API keys and tokens struck out."""
    for key in _hidden:
        text = text.replace(key, "[key]")
    for name, value in os.environ.items():
        if name.endswith(("_API_KEY", "_TOKEN")) and len(value) >= 8:
            text = text.replace(value, "[key]")
    return text


def snippet(text: str, length: int = 160) -> str:
    """One short line of any text, without keys: gateways repeat the one that was sent."""
    return one_line(replace_surrogates(without_keys(text))[0], length)
