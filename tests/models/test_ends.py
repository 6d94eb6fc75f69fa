"""Why an answer ended, and in what shape it came, through both SDKs: whole, cut, tried again, or rejected with the word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RowReject
from pipeline.models.journal import Answer, Journal
from tests.loopback import LoopbackServer
from tests.models.asking import KEY, KEYS
from tests.models.odd import ANTHROPIC, OPENAI, SAID, told

LIMIT = 200  # of `told`'s request


pytestmark = pytest.mark.usefixtures("quick_and_keyed")


def body(provider: str, finish: object, tokens: int = 2, text: str = "Hi.") -> dict[str, Any]:
    if provider == "openai":
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 5, "completion_tokens": tokens}
        return {"choices": [{"finish_reason": finish, "message": message}], "usage": usage}
    usage = {"input_tokens": 5, "output_tokens": tokens}
    return {"content": [{"type": "text", "text": text}], "stop_reason": finish, "usage": usage}


@pytest.mark.parametrize("provider", KEYS)
@pytest.mark.parametrize(
    ("finish", "ended", "calls"),
    [
        *((word, "stop", 1) for word in ("stop", "STOP", "end_turn", "stop_sequence", "eos", "eos_token", "COMPLETE")),
        *((word, "stop", 1) for word in (None, "", {"type": "stop", "matched": 2}, "FINISH_REASON_STOP")),
        *((word, "length", 1) for word in ("length", "max_tokens", "MAX_TOKENS", "model_length", "limit")),
        ("model_context_window_exceeded", "length", 1),
        *((word, "content_filter", 1) for word in ("content_filter", "SAFETY", "sensitive", "RECITATION", "SPII")),
        ("content_filter: PROHIBITED_CONTENT", "content_filter", 1),
        ("refusal", "refused", 1),
        *((word, "unexpected_end", 1) for word in ("pause_turn", "tool_use", "tool_calls", "function_call", "zzz", 7)),
        *((word, "server_error", 2) for word in ("error", "abort", "insufficient_system_resource", "network_error")),
        ("OTHER", "server_error", 2),
    ],
)
def test_why_an_answer_ended(
    odd_server: LoopbackServer, tmp_path: Path, provider: str, finish: object, ended: str, calls: int
) -> None:
    result = told(odd_server, provider, body(provider, finish), Journal(tmp_path / "journal.db"))
    assert (getattr(result, "finish", None) or getattr(result, "reason", result), SAID["times"]) == (ended, calls)
    if isinstance(result, RowReject):
        assert result.reason == "refused" or str(finish) in str(result.evidence)
    elif isinstance(result, Answer) and ended == "length" != finish:
        assert result.end == finish


@pytest.mark.parametrize("provider", KEYS)
@pytest.mark.parametrize(
    ("tokens", "ended"), [(2, "stop"), (LIMIT - 1, "stop"), (LIMIT, "length"), (LIMIT + 1, "length")]
)
def test_without_a_word_the_limit_decides(
    odd_server: LoopbackServer, tmp_path: Path, provider: str, tokens: int, ended: str
) -> None:
    said = body(provider, None, tokens)
    del (said["choices"][0] if provider == "openai" else said)[
        "finish_reason" if provider == "openai" else "stop_reason"
    ]
    result = told(odd_server, provider, said, Journal(tmp_path / "journal.db"))
    assert isinstance(result, Answer) and (result.text, result.finish) == ("Hi.", ended)


def choice(**fields: Any) -> dict[str, Any]:
    return OPENAI | {"choices": [fields]}


@pytest.mark.parametrize(
    ("provider", "said", "expected"),
    [
        ("openai", choice(finish_reason="stop", message={"content": [{"type": "text", "text": "Hi."}]}), "Hi."),
        (
            "openai",
            choice(finish_reason="stop", message={"content": ["H", {"type": "output_text", "text": "i."}]}),
            "Hi.",
        ),
        ("openai", choice(finish_reason="stop", message={"content": [{"type": "image_url"}]}), "empty_answer"),
        ("openai", {"choices": OPENAI["choices"]}, "Hi."),
        ("openai", choice(finish_reason="content_filter"), "content_filter"),
        ("openai", choice(finish_reason="SAFETY", message=None), "content_filter"),
        ("openai", OPENAI | {"choices": None}, "empty_choices"),
        ("openai", choice(finish_reason="stop", index=0), "malformed_answer"),
        (
            "openai",
            choice(finish_reason="stop", message={"content": None, "reasoning_content": "Hm."}),
            "reasoning_used_all_tokens",
        ),
        ("openai", choice(finish_reason="length", message={"content": ""}), "reasoning_used_all_tokens"),
        ("openai", choice(finish_reason="stop", message={"content": "</s>"}), "empty_answer"),
        ("anthropic", {"content": ANTHROPIC["content"], "stop_reason": "end_turn"}, "Hi."),
        ("anthropic", ANTHROPIC | {"content": [], "stop_reason": "max_tokens"}, "reasoning_used_all_tokens"),
        ("anthropic", ANTHROPIC | {"content": [], "stop_reason": "end_turn"}, "empty_answer"),
        (
            "anthropic",
            ANTHROPIC | {"content": [{"type": "tool_use", "id": "t"}], "stop_reason": "tool_use"},
            "unexpected_end",
        ),
    ],
)
def test_odd_shapes(odd_server: LoopbackServer, tmp_path: Path, provider: str, said: object, expected: str) -> None:
    result = told(odd_server, provider, said, Journal(tmp_path / "journal.db"))
    assert (getattr(result, "text", None) or getattr(result, "reason", result)) == expected


@pytest.mark.parametrize("provider", KEYS)
@pytest.mark.parametrize(
    "token",
    "</s> <|eot_id|> <|im_end|> <end_of_turn> <|endoftext|> <｜end▁of▁sentence｜> <|END_OF_TURN_TOKEN|> [|endofturn|]".split(),
)
def test_end_tokens_of_any_family_are_no_part_of_an_answer(
    odd_server: LoopbackServer, tmp_path: Path, provider: str, token: str
) -> None:
    for number, ending in enumerate((token, f"\n{token}{token}\n")):
        said = body(provider, None, text=f"Hi.{ending}")
        result = told(odd_server, provider, said, Journal(tmp_path / f"{number}.db"))
        assert isinstance(result, Answer) and result.text == "Hi."


@pytest.mark.parametrize("provider", KEYS)
def test_a_key_that_a_server_repeats_in_its_answer_is_struck_out(
    odd_server: LoopbackServer, tmp_path: Path, provider: str
) -> None:
    journal = Journal(tmp_path / "journal.db")
    said = body(provider, "stop", text=f"<think>{KEY} was sent</think>Yours is {KEY}.")
    result = told(odd_server, provider, said, journal)
    assert isinstance(result, Answer) and (result.text, result.reasoning) == ("Yours is [key].", "[key] was sent")
    journal.close()
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.iterdir())
