"""What the body of an error says, whatever its shape, and what that means.

Providers and gateways differ in where they put their words: `{"error": {"message"}}`, a string, a list, FastAPI's `detail`, an
upstream provider's JSON inside `metadata.raw`, an HTML page. They differ as well in the status that goes with one cause: an
empty account is a 400, 402, 403, 412, 429 or 200. So the words are read first, and the status only says the rest.
"""

import html
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.text import one_line

# Bodies are untrusted: no deeper, and no more members of one object or list, than any provider's error has.
_DEEPEST = 12
_MOST_MEMBERS = 32
_MOST_CHARACTERS = 20_000
_LONGEST_CODE = 100
_TEXTS = (
    "message Message msg detail error errors error_message error_description metadata raw reasons title base_resp "
    "status_msg result response body"
).split()
_CODES = ("code", "type", "error_type", "status", "reason", "quotaId", "param")
# Where an error names the parameter that it is about.
_POINTERS = ("param", "parameter", "loc", "field", "argument")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|seconds?|secs?|minutes?|mins?|hours?|days?|[smhd])(?![a-z])", re.IGNORECASE
)
_WAIT = re.compile(rf"(?:try again|retry) (?:in|after) ((?:{_DURATION.pattern}[\s,]*(?:and )?)+)", re.IGNORECASE)
_MOMENTS: tuple[Callable[[str], datetime], ...] = (datetime.fromisoformat, parsedate_to_datetime)
# The title of a page; where it has none, its text.
_TITLE = re.compile(r"<(title|h1)\b[^>]*>(.*?)</\1", re.IGNORECASE | re.DOTALL)


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_MONEY_CODES = _any(
    r"insufficient_(?:user_)?(?:quota|credits?|balance|funds)",
    r"exceeded_current_quota",
    r"billing_(?:hard_limit|not_active|error)",
    r"budget_exceeded|payment_required|credits?_exhausted|arrearage",
    r"\b1113\b",  # Zhipu
)
_MONEY = _any(
    r"credit balance is too low",
    r"insufficient (?:account )?(?:balance|credits?|funds|quota)",
    r"(?:out of|not enough|more|any|all available) (?:credits?|funds)\b",
    r"specified api usage limits",
    r"budget (?:has been )?exceeded|exceeded\w*budget",
    r"exceeded (?:your|the) [\w ]*(?:credits?|budget|spend\w*)",
    r"spend(?:ing)? (?:limit|cap)|credit limit|payment required",
    r"account (?:\S+ )?(?:is )?(?:suspended|in arrears|overdue)",
    r"余额不足|欠费",
)
# Gemini says this of its limits per minute too, with the time after which to try again.
_QUOTA = _any(r"exceeded your current quota")
_FLAGGED_CODES = _any(
    r"content_?filter|content_policy|data_?inspection_?failed|responsibleaipolicy|moderation|prohibited_content",
    r"invalid_prompt",  # OpenAI's, of a prompt that a reasoning model's filter stops
    r"\b1301\b",  # Zhipu
)
_FLAGGED = _any(
    r"content (?:management |filtering |usage )?polic|content filter|\bflagged\b",
    r"(?:requires?d?|blocked by|failed) moderation",
    r"usage (?:guidelines|polic)",
    r"inappropriate content|prohibited content|sensitive (?:content|words?|information)|敏感",
)
_ACCOUNT = _any(r"(?:account|organi[sz]ation|project|team) (?:\S+ )?(?:has been|is|was) (?:disabled|suspended|banned)")
_WRONG_KEY = _any(r"api_key_invalid|api key not valid")
_DAILY = _any(r"per[ _-]?day|\b(?:rpd|tpd)\b|\bdaily\b")
_LOADING = _any(r"\bloading\b|loaded yet|warming up|starting up|not ready|estimated_time|initiali[sz]ing")
_TOO_LONG = _any(
    r"context (?:length|window|size)|context_length|exceed_context",
    r"maximum (?:context|input|prompt)|prompt is too long|request too large|input (?:length|tokens?) (?:exceed|must)",
)
_MORE_THAN_A_MINUTE_HAS = _any(r"limit:? (\d+),? (?:used:? \d+,? )?requested:? (\d+)")


@dataclass(frozen=True, slots=True)
class Words:
    """The words of an error.

    text: the code first; untrusted, of any length. wait_s: seconds after which to try again. pointers: the parameters that it
    is about, as dotted paths.
    """

    text: str = ""
    codes: str = ""
    is_page: bool = False
    flagged_input: bool = False
    wait_s: float | None = None
    pointers: tuple[str, ...] = ()

    @property
    def out_of_money(self) -> bool:
        if self.is_page or self.flagged_input:
            return False
        says = _MONEY_CODES.search(self.codes) or _MONEY.search(self.text)
        return bool(says or (_QUOTA.search(self.text) and self.wait_s is None))

    @property
    def moderated(self) -> bool:
        says = self.flagged_input or _FLAGGED_CODES.search(self.codes) or _FLAGGED.search(self.text)
        return bool(says) and not _ACCOUNT.search(self.text)

    @property
    def wrong_key(self) -> bool:
        return bool(_WRONG_KEY.search(f"{self.codes} {self.text}"))

    @property
    def daily(self) -> bool:
        return bool(_DAILY.search(f"{self.codes} {self.text}"))

    @property
    def loading(self) -> bool:
        return bool(_LOADING.search(self.text))

    @property
    def too_large(self) -> bool:
        """Whether this request can never be taken, not even alone in its minute."""
        limit = _MORE_THAN_A_MINUTE_HAS.search(self.text)
        return bool(_TOO_LONG.search(self.text) or (limit and int(limit[2]) > int(limit[1])))


def read_words(body: Any) -> Words:
    """The words of an error's body: JSON that is read already, or text that may be JSON, HTML or anything else."""
    if isinstance(body, str):
        body = body[:_MOST_CHARACTERS].lstrip("\ufeff \t\r\n")
        if body.startswith("<"):
            return Words(_page_title(body), is_page=True)
    texts = list(dict.fromkeys(text for text in _texts(body) if text.strip()))
    known = list(_members(body))
    codes = [(name, str(code)) for name, code in known if name in _CODES and isinstance(code, str | int)]
    codes = [(name, code) for name, code in codes if len(code) <= _LONGEST_CODE]
    named = [code for wanted in ("code", "type") for name, code in codes if name == wanted and not code.isdigit()]
    text = " ".join([*named[:1], "; ".join(texts)])
    flagged = any(name == "flagged_input" for name, _ in known)
    pointing = [value for name, value in known if name in _POINTERS and value]
    pointers = tuple(".".join(map(str, one)) if isinstance(one, list) else str(one) for one in pointing)
    return Words(text, " ".join(code for _, code in codes), False, flagged, _wait(known, text), pointers)


def _page_title(page: str) -> str:
    title = _TITLE.search(page)
    text = html.unescape(re.sub(r"<[^>]*>", " ", title[2] if title else page))
    return f"an HTML page: {one_line(text)}"


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """The messages in a body, the outermost first."""
    if isinstance(value, str):
        inner = parsed(value) if value.lstrip().startswith(("{", "[")) else None
        yield from [value] if inner is None else _texts(inner, depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, list) and depth < _DEEPEST:
        for each in value[:_MOST_MEMBERS]:
            yield from _texts(each, depth + 1)
    elif isinstance(value, dict) and depth < _DEEPEST:
        if isinstance(value.get("loc"), list) and "msg" in value:
            yield f"{'.'.join(map(str, value['loc'][:8]))}: {value['msg']}"
            return
        for name in _TEXTS:
            yield from _texts(value.get(name), depth + 1)
        if "estimated_time" in value:
            yield f"estimated_time {value['estimated_time']}"


def _members(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """All members of all objects in a body, JSON inside of texts included; those of lists have no name."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        value = parsed(value)
    each = value.items() if isinstance(value, dict) else (("", one) for one in value) if isinstance(value, list) else ()
    for _, (name, member) in zip(range(_MOST_MEMBERS), each, strict=False):
        yield name, member
        yield from _members(member, depth + 1)


def parsed(text: str) -> Any:
    """The JSON object in a text, or the list that it begins with; None without one. What follows it doesn't count."""
    start = len(text) - len(text.lstrip()) if text.lstrip().startswith("[") else text.find("{")
    try:
        return json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        return None


def _wait(known: list[tuple[str, Any]], text: str) -> float | None:
    """Seconds to wait by `retryDelay`, an inner response's `X-RateLimit-Reset`, or the message; None without any."""
    named = (value for name, value in known if name.lower() in ("retrydelay", "x-ratelimit-reset", "estimated_time"))
    says = _WAIT.search(text)
    waits = map(seconds_until, [*named, says[1] if says else None])
    return next((wait for wait in waits if wait is not None), None)


def seconds_until(value: Any) -> float | None:
    """The seconds of a duration, or until a moment: in seconds or milliseconds since 1970, RFC 3339 or HTTP's form.

    >>> [seconds_until(text) for text in ("7m12s", "34.07s", "2 hours", 86400, "soon", "-5")]
    [432.0, 34.07, 7200.0, 86400.0, None, None]
    """
    text = str(value).strip()
    with suppress(ValueError):
        number = float(text)
        if not number >= 0:
            return None
        # Numbers of this size are moments.
        is_moment = 1e9 < number < 1e14
        return max(0.0, (number / 1000 if number > 1e11 else number) - time.time()) if is_moment else number
    if parts := _DURATION.findall(text):
        return sum(float(n) * (0.001 if unit.lower() == "ms" else _UNITS[unit[0].lower()]) for n, unit in parts)
    for read in _MOMENTS:
        # "1, 2" is no date, though Python's parser takes it for one.
        with suppress(ValueError, TypeError, OverflowError):
            return max(0.0, read(text).timestamp() - time.time()) if ":" in text else None
    return None


def wait_by_headers(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait by Retry-After, else until a used-up limit is full again; None without a readable one."""
    for named in (f"{headers.get('retry-after-ms')}ms", headers.get("retry-after")):
        if (wait := seconds_until(named)) is not None:
            return wait
    used_up = [kind for kind in ("-requests", "-tokens", "") if headers.get(f"x-ratelimit-remaining{kind}") == "0"]
    waits = [seconds_until(headers.get(f"x-ratelimit-reset{kind}")) for kind in used_up]
    return max((wait for wait in waits if wait is not None), default=None)
