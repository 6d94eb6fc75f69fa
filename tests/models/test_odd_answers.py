"""Status 200 with JSON that is no API's answer, through both SDKs: each a row's reject or an answer, never a broken run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RowReject
from pipeline.models.journal import Answer, Journal
from tests.loopback import LoopbackServer
from tests.models.asking import KEY, KEYS, address, ask, model_at
from tests.models.odd import ANTHROPIC, OPENAI, SAID, choice, told

MALFORMED = {
    "openai": [
        *({"choices": value} for value in ("abc", {"a": 1}, 3, [None], [{}], [{"message": None}], [{"message": "hi"}])),
        *(choice(value) for value in (3, {"a": 1}, [{"type": "text"}], [3])),
        *([OPENAI], "hello", None, 3, b"[" * 100_000, b'{"a":' + b"9" * 6000 + b"}", b'{"choices": "\xff"}'),
        OPENAI | {"choices": f"Your key is {KEY}."},
    ],
    "anthropic": [
        *(ANTHROPIC | {"content": value} for value in ("hi", 3, [None], ["hi"], [{"type": "text", "text": None}])),
        *([ANTHROPIC], "hello", None, b"[" * 100_000),
    ],
}
UNCOUNTED: dict[str, list[Any]] = {
    "openai": [
        OPENAI | {"usage": usage}
        for usage in (None, "x", [1], {}, {"prompt_tokens": 5}, {"prompt_tokens": "5", "completion_tokens": "2"})
    ]
    + [OPENAI | {"usage": {"prompt_tokens": n, "completion_tokens": 2}} for n in (-5, 2.5, 10**30, None)],
    "anthropic": [
        ANTHROPIC | {"usage": usage} for usage in (None, "x", {}, {"input_tokens": 5, "output_tokens": None})
    ],
}


pytestmark = pytest.mark.usefixtures("quick_and_keyed")


@pytest.mark.parametrize("provider", KEYS)
def test_json_of_another_shape_is_a_malformed_answer(odd_server: LoopbackServer, tmp_path: Path, provider: str) -> None:
    for number, body in enumerate(MALFORMED[provider]):
        journal = Journal(tmp_path / f"{number}.db")
        ended = told(odd_server, provider, body, journal)
        assert isinstance(ended, RowReject), (body, ended)
        assert (ended.reason, SAID["times"]) == ("malformed_answer", 2)
        assert ended.evidence["error"].startswith("status 200 with")
        assert KEY not in str(ended.evidence)
        journal.close()


@pytest.mark.parametrize("provider", KEYS)
def test_an_answer_without_a_count_costs_its_most(odd_server: LoopbackServer, tmp_path: Path, provider: str) -> None:
    for number, body in enumerate(UNCOUNTED[provider]):
        journal = Journal(tmp_path / f"{number}.db")
        ended = told(odd_server, provider, body, journal)
        assert isinstance(ended, Answer) and ended.text == "Hi.", (body, ended)
        assert ended.uncounted
        assert journal.spent() >= 200 / 1e6
        journal.close()


@pytest.mark.parametrize(
    ("provider", "body", "ended"),
    [
        ("anthropic", ANTHROPIC | {"stop_reason": "model_context_window_exceeded"}, "length"),
        ("openai", choice("Hi.", finish_reason="error"), "server_error"),
        ("openai", choice("Hi.", finish_reason=None), "stop"),
    ],
)
def test_why_an_answer_ended(
    odd_server: LoopbackServer, tmp_path: Path, provider: str, body: object, ended: str
) -> None:
    result = told(odd_server, provider, body, Journal(tmp_path / "journal.db"))
    assert (result.finish if isinstance(result, Answer) else getattr(result, "reason", result)) == ended


def test_a_count_above_max_tokens_is_not_asked_for_again(odd_server: LoopbackServer, tmp_path: Path) -> None:
    """Some servers count the EOS, or hidden reasoning, on top of the limit."""
    SAID.update(status=200, headers={}, body=OPENAI | {"usage": {"prompt_tokens": 5, "completion_tokens": 27}}, times=0)
    model = model_at(f"{address(odd_server, 'anthropic')}/odd/v1", Journal(tmp_path / "journal.db"))
    assert [ask(model, "Hello", limit).text for limit in (20, 20, 40)] == ["Hi."] * 3
    assert SAID["times"] == 1
    ask(model, "Hello", 10)
    assert SAID["times"] == 2


@pytest.mark.parametrize(("finish", "asked"), [("content_filter", 1), ("stop", 2)])
def test_more_room_changes_no_refusal(odd_server: LoopbackServer, tmp_path: Path, finish: str, asked: int) -> None:
    SAID.update(status=200, headers={}, body=choice("", finish_reason=finish), times=0)
    model = model_at(f"{address(odd_server, 'anthropic')}/odd/v1", Journal(tmp_path / "journal.db"))
    for limit in (20, 20, 40):
        with pytest.raises(RowReject):
            ask(model, "Hello", limit)
    assert SAID["times"] == asked
