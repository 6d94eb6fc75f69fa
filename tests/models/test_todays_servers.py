"""What today's servers and gateways were seen to send, status, headers and body: each ends as it should, in so many calls."""

from __future__ import annotations

import gzip
import json
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.models.journal import Journal
from pipeline.models.request import Answer
from tests.loopback import LoopbackServer
from tests.models.odd import ANTHROPIC, OPENAI, SAID, choice, told

pytestmark = pytest.mark.usefixtures("quick_and_keyed")
MOST = 200 / 1e6


class Case(NamedTuple):
    """ended: the answer's text, or the reason or class of its failure; words: of its evidence, thoughts or message."""

    body: Any
    ended: str
    calls: int = 1
    words: str = ""
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    # Whether the calls may have been billed without a count.
    uncounted: bool = False
    provider: str = "openai"


def message(content: object = "Hi.", finish: object = "stop", **more: object) -> dict[str, Any]:
    return OPENAI | {"choices": [{"finish_reason": finish, "message": {"content": content, **more}}]}


def wire(value: object) -> bytes:
    return json.dumps(value).encode()


def refusal(status: int, ended: str, calls: int = 1, words: str = "", **headers: str) -> Case:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Case({"error": {"message": "No."}}, ended, calls, words, status, named)


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
TOOLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
HTML = b"<html><head><title>502 Bad Gateway</title></head></html>"
QUOTA = "x-ratelimit-{}-requests"
CASES = {
    # the body's form
    "bom": Case(b"\xef\xbb\xbf" + wire(OPENAI), "Hi."),
    "keep_alive_blanks": Case(b"\n \n \n" + wire(OPENAI) + b"\n\n", "Hi."),
    "gzip": Case(gzip.compress(wire(OPENAI)), "Hi.", headers={"content-encoding": "gzip"}),
    "not_gzip": Case(b"plain", "connection_lost", 2, headers={"content-encoding": "gzip"}, uncounted=True),
    "utf_16": Case(json.dumps(OPENAI).encode("utf-16"), "Hi."),
    "latin_1": Case('{"choices": "é"}'.encode("latin-1"), "malformed_answer", 2, "utf-8", uncounted=True),
    "unknown_charset": Case(wire(OPENAI), "Hi.", headers={"content-type": "application/json; charset=odd"}),
    "trailing_object": Case(wire(OPENAI) + wire({"done": True}), "malformed_answer", 2, uncounted=True),
    "stream": Case(b"data: {}\n\ndata: [DONE]\n\n", "malformed_answer", 2, "data:", uncounted=True),
    "no_content": Case(b"", "malformed_answer", 2, status=204, uncounted=True),
    "html": Case(HTML, "html_answer", 2, "502 Bad Gateway", headers={"content-type": "text/html"}),
    "html_as_json": Case(HTML, "html_answer", 2, "502 Bad Gateway"),
    "half_a_character": Case(wire(message("Hi \ud83d")), "Hi \ufffd"),
    "half_a_character_in_a_word": Case(wire(message("Hi.", "st\ud83dop")), "unexpected_end", words="d83d"),
    # choices
    "choices_twice": Case(OPENAI | {"choices": OPENAI["choices"] * 2}, "Hi."),
    "no_choice": Case(OPENAI | {"choices": []}, "empty_choices"),
    "tool_calls": Case(message(None, tool_calls=TOOLS), "unexpected_end", words="tool_calls"),
    "text_before_tool_calls": Case(message("I will look.", tool_calls=TOOLS), "unexpected_end", words="tool_calls"),
    "no_tool_calls": Case(message(tool_calls=[], function_call=None), "Hi."),
    "null_as_text": Case(message(finish="null"), "Hi."),
    "native_end": Case(choice("Ha", native_finish_reason="MAX_TOKENS"), "Ha", words="length"),
    "native_filter": Case(choice("Ha", native_finish_reason="SAFETY"), "content_filter"),
    "native_good_end": Case(choice("Hi.", native_finish_reason="completed"), "Hi."),
    "tool_use": Case(
        ANTHROPIC | {"content": [*ANTHROPIC["content"], {"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
        "unexpected_end",
        words="tool_use",
        provider="anthropic",
    ),
    # content
    "refusal": Case(message(None, refusal="I can't."), "refused", words="I can't"),
    "refusal_as_object": Case(message(None, refusal={"reason": "unsafe"}), "refused", words="unsafe"),
    "refusal_as_part": Case(message([{"type": "refusal", "refusal": "I can't."}]), "refused", words="I can't"),
    "no_refusal": Case(message(refusal=""), "Hi."),
    "one_part": Case(message({"type": "text", "text": "Hi."}), "Hi."),
    "text_as_object": Case(message([{"type": "text", "text": {"value": "Hi.", "annotations": []}}]), "Hi."),
    "unknown_part": Case(message([{"type": "reference", "ids": [1]}, {"type": "text", "text": "Hi."}]), "Hi."),
    "only_unknown_parts": Case(message([{"type": "audio", "audio": {}}]), "empty_answer"),
    # thoughts
    "reasoning_text": Case(message(reasoning_text="Hm."), "Hi.", words="Hm."),
    "reasoning_object": Case(message(reasoning={"content": "Hm."}), "Hi.", words="Hm."),
    "thinking_blocks": Case(message(thinking_blocks=[{"type": "thinking", "thinking": "Hm."}]), "Hi.", words="Hm."),
    "provider_fields": Case(message(provider_specific_fields={"reasoning_content": "Hm."}), "Hi.", words="Hm."),
    "summaries": Case(message(reasoning_details=[{"summary": "Hm."}, {"data": "x"}]), "Hi.", words="Hm."),
    "encrypted": Case(
        message(None, reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]), "reasoning_used_all_tokens", 2
    ),
    "only_thinking_blocks": Case(message(None, thinking_blocks=[{"thinking": "Hm."}]), "reasoning_used_all_tokens", 2),
    # status 200, and no answer
    "money": Case(
        {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "stopped"
    ),
    "busy": Case(
        {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "busy"}}, "server_error", 2, "busy"
    ),
    "moderated": Case({"code": "DataInspectionFailed", "message": "Inappropriate content."}, "content_filter"),
    "wrong_key": Case({"code": 401, "msg": "Invalid token"}, "stopped", words="Invalid token"),
    "no_route": Case(
        {"success": False, "errors": [{"code": 7003, "message": "No route"}]}, "server_error", 2, "No route"
    ),
    "another_api": Case(ANTHROPIC, "malformed_answer", 2, uncounted=True),
    "anthropic_detail": Case({"detail": "Not Found"}, "server_error", 2, "Not Found", provider="anthropic"),
    # other statuses
    "redirect": refusal(302, "bad_request", 1, "/login", location="/login"),
    "redirect_to_itself": refusal(307, "bad_request", 1, "redirects to", location="/odd/v1/chat/completions"),
    "gzip_error": Case(
        gzip.compress(wire({"error": "Not so."})), "bad_request", 1, "Not so.", 400, {"content-encoding": "gzip"}
    ),
    "half_a_character_in_an_error": Case(rb'{"error": "No \ud83d."}', "bad_request", 1, "<d83d>", 400),
    "flex_is_full": refusal(498, "server_error", 2, "No."),
    "generation_failed": refusal(424, "server_error", 2),
    "too_early": refusal(425, "server_error", 2),
    "overloaded": Case(OVERLOADED, "server_error", 2, "Overloaded", 529, {"retry-after": "-30"}),
    "waits_a_past_date": refusal(429, "rate_limited", 2, retry_after=formatdate(0, usegmt=True)),
    "waits_twice": refusal(429, "rate_limited", 2, retry_after="1, 2"),
    "waits_in_hexadecimal": refusal(429, "rate_limited", 2, retry_after="0x10"),
    "quota_without_numbers": Case(
        OPENAI, "Hi.", headers={QUOTA.format("limit"): "1e999", QUOTA.format("reset"): "-1s"}
    ),
    "no_quota": Case(OPENAI, "Hi.", headers={QUOTA.format(name): "0" for name in ("limit", "remaining", "reset")}),
}


@pytest.mark.parametrize("name", CASES)
def test_how_a_call_ends(odd_server: LoopbackServer, tmp_path: Path, name: str) -> None:
    case, journal = CASES[name], Journal(tmp_path / "journal.db")
    result = told(odd_server, case.provider, case.body, journal, status=case.status, headers=case.headers)
    if isinstance(result, Answer):
        ended, words = result.text, f"{result.finish} {result.reasoning}"
    else:
        ended, words = getattr(result, "reason", "stopped"), str(getattr(result, "evidence", result))
    assert (ended, SAID["times"]) == (case.ended, case.calls), repr(result)
    assert case.words in words
    assert "Traceback" not in words
    # What was answered, or can't have been, costs what it costs; of the rest each call counts at its most.
    assert (journal.uncertain() >= 2 * MOST) == case.uncounted
    assert case.uncounted or journal.spent() <= 2 * 7 / 1e6


@pytest.mark.parametrize(
    ("cost", "counted"),
    [(0.5, 0.5), ("0.5", 0.5), ({"total_cost": 0.5}, 0.5), (1e-9, 7e-6), (-3, 7e-6), (True, 7e-6), ("much", 7e-6)],
)
def test_the_larger_of_our_sum_and_the_servers_own_counts(
    odd_server: LoopbackServer, journal: Journal, cost: object, counted: float
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "cost": cost}
    assert isinstance(told(odd_server, "openai", OPENAI | {"usage": usage}, journal), Answer)
    assert journal.spent() == pytest.approx(counted)
    # More than the call was allowed, so that more is set aside for the next.
    assert bool(journal.overruns()) == (counted > MOST)


def test_what_stays_in_the_cache_for_an_hour_costs_twice_the_input(
    odd_server: LoopbackServer, journal: Journal
) -> None:
    written = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 30}
    usage = {"input_tokens": 5, "output_tokens": 2, "cache_creation_input_tokens": 40, "cache_creation": written}
    assert isinstance(told(odd_server, "anthropic", ANTHROPIC | {"usage": usage}, journal), Answer)
    assert journal.spent() == pytest.approx((5 + 10 + 2 * 30 + 2) / 1e6)


def test_a_key_follows_no_redirect(odd_server: LoopbackServer, journal: Journal) -> None:
    with LoopbackServer() as other:
        where = {"location": f"{other.url}/v1/messages"}
        told(odd_server, "anthropic", {}, journal, status=307, headers=where)
        assert not other.calls
