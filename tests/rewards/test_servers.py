"""Reward servers, against loopback ones that speak their formats: order, odd scores, failures, and the mapping."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import rewards
from pipeline.config.settings import CurationConfig, RewardSettings
from pipeline.curate import curate, in_threads
from pipeline.errors import ConfigError, ProviderStopped, RowReject
from pipeline.models import retry
from pipeline.rewards.base import score_items
from tests.conftest import Silent
from tests.loopback.rewards import RewardDesk
from tests.rewards.scoring import no_chat

ITEMS = [([{"role": "user", "content": f"Question {n}?"}], f"Answer {n}") for n in range(23)]
EXPECTED = [float(n) for n in range(23)]
MAPPED = {"request": {"items": "$answers", "as": "x"}, "scores": "out.results.*.reward", "index": "out.results.*.n"}
KINDS = [
    ("vllm", {"endpoint": "classify"}),
    ("vllm", {"endpoint": "score"}),
    ("vllm", {"endpoint": "pooling"}),
    ("openrlhf", {}),
    ("http", MAPPED),
    ("http", MAPPED | {"request": {"items": "$answer"}, "index": None}),
]


def last_number(text: str) -> float:
    return float(text.rsplit(maxsplit=1)[-1])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_backoff", lambda state: 0.001)
    monkeypatch.setenv("REWARD_API_KEY", "sk-loopback")


@pytest.fixture
def ask(loopback: Callable[..., Any]) -> Callable[..., tuple[list[Any], RewardDesk]]:
    """Scores of ITEMS by a server of that kind, and the desk that gave them."""

    def asked(provider: str, desk: RewardDesk | None = None, **settings: Any) -> tuple[list[Any], RewardDesk]:
        desk = desk or RewardDesk(last_number)
        server = loopback(extensions=[desk.extend])
        url = server.url + ("/any" if provider == "http" else "")
        reward = load(f"{provider}/rm@{url}", **settings)
        return score_items(reward, ITEMS, [""] * len(ITEMS)), desk

    return asked


def load(model: str, **settings: Any) -> Any:
    return rewards.load_reward(
        RewardSettings(model=model, api_key_env="REWARD_API_KEY", attempts=2, batch_size=4, **settings), no_chat
    )


@pytest.mark.parametrize(("provider", "settings"), KINDS)
def test_scores_are_in_the_order_of_the_items(ask: Callable[..., Any], provider: str, settings: dict[str, Any]) -> None:
    scores, desk = ask(provider, **settings)
    assert scores == EXPECTED
    # Requests go out together: any of them may arrive first.
    single = "messages" in desk.bodies[0] or desk.bodies[0].get("items") in [answer for _, answer in ITEMS]
    assert len(desk.bodies) == (23 if single else 6)


def test_a_tokenizer_of_ones_own_writes_the_texts_and_they_go_in_batches(
    ask: Callable[..., Any], tiny_tokenizer: Path
) -> None:
    desk = RewardDesk(lambda text: last_number(text.replace("<|im_end|>", "")))
    scores, _ = ask("vllm", desk, tokenizer=str(tiny_tokenizer))
    assert scores == EXPECTED and len(desk.bodies) == 6
    assert "<|im_start|>user\nQuestion 0?<|im_end|>\n<|im_start|>assistant\nAnswer 0<|im_end|>\n" in [
        text for body in desk.bodies for text in body["input"]
    ]
    with pytest.raises(ConfigError, match=r"reward\.tokenizer"):
        load("vllm/rm@http://127.0.0.1:9", tokenizer="/no/such")


def test_without_one_a_text_is_a_transcript(ask: Callable[..., Any]) -> None:
    _, desk = ask("openrlhf")
    assert any("\n\nHuman: Question 0?\n\nAssistant: Answer 0" in body["query"] for body in desk.bodies)


@pytest.mark.parametrize("bad", [None, "0.5", True, [], {"score": 1}, [1.0, 2.0]])
@pytest.mark.parametrize(("provider", "settings"), KINDS)
def test_what_is_no_number_is_a_reject_of_its_row(
    ask: Callable[..., Any], provider: str, settings: dict[str, Any], bad: Any
) -> None:
    scores, _ = ask(provider, RewardDesk(lambda text: bad if text.endswith(" 5") else last_number(text)), **settings)
    assert [n for n, score in enumerate(scores) if isinstance(score, RowReject)] == [5]
    assert scores[5].reason == "bad_reward" and not scores[5].retryable
    assert scores[:5] + scores[6:] == EXPECTED[:5] + EXPECTED[6:]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400])
def test_what_is_not_finite_stays_that(ask: Callable[..., Any], bad: float) -> None:
    scores, _ = ask("openrlhf", RewardDesk(lambda text: bad if text.endswith(" 5") else last_number(text)))
    assert [n for n, score in enumerate(scores) if not math.isfinite(score)] == [5]


def test_a_wrong_number_of_scores_rejects_the_rows_of_that_request(ask: Callable[..., Any]) -> None:
    def short(answer: dict[str, Any]) -> dict[str, Any]:
        return {"rewards": answer["rewards"][:-1]} if 5.0 in answer["rewards"] else answer

    scores, _ = ask("openrlhf", RewardDesk(last_number, short))
    assert [n for n, score in enumerate(scores) if isinstance(score, RowReject)] == [4, 5, 6, 7]
    assert scores[4].evidence["error"] == "3 scores for 4 answers"


def test_with_an_index_only_the_missing_and_the_doubled_are_rejects(ask: Callable[..., Any]) -> None:
    def odd(answer: dict[str, Any]) -> dict[str, Any]:
        # In reverse: items 3, 2, 1, 0 of each request.
        data = answer["data"]
        return answer | {"data": [*data[1:], data[1]] if any(each["score"] == 7.0 for each in data) else data}

    scores, _ = ask("vllm", RewardDesk(last_number, odd), endpoint="score")
    wrong = {n: score.evidence["error"] for n, score in enumerate(scores) if isinstance(score, RowReject)}
    assert wrong == {6: "2 scores for this answer", 7: "no score for this answer"}


@pytest.mark.parametrize("answer", [[], {}, "OK", None, {"rewards": 3}, {"rewards": {"0": 1}}])
def test_an_answer_of_another_shape_rejects_its_rows(ask: Callable[..., Any], answer: Any) -> None:
    scores, _ = ask("openrlhf", RewardDesk(last_number, lambda _: answer))
    assert all(isinstance(score, RowReject) and score.reason == "bad_reward" for score in scores)


def test_of_several_labels_one_is_the_score(ask: Callable[..., Any]) -> None:
    def two(answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {"data": [each | {"probs": [-1.0, *each["probs"]]} for each in answer["data"]]}

    assert ask("vllm", RewardDesk(last_number, two), label=1)[0] == EXPECTED
    scores, _ = ask("vllm", RewardDesk(last_number, two))
    assert "reward.label" in scores[0].evidence["error"]


def test_of_scores_of_every_token_the_last_ones_count(ask: Callable[..., Any]) -> None:
    def every(answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {"data": [each | {"data": [[0.5], [7.5], each["data"]]} for each in answer["data"]]}

    assert ask("vllm", RewardDesk(last_number, every), endpoint="pooling")[0] == EXPECTED


def test_what_passes_is_tried_again(ask: Callable[..., Any]) -> None:
    scores, desk = ask("openrlhf", RewardDesk(last_number, statuses=(503, 429)))
    assert scores == EXPECTED and len(desk.bodies) == 8


def test_what_one_item_is_refused_for_does_not_cost_the_others(ask: Callable[..., Any]) -> None:
    desk = RewardDesk(last_number)
    desk.longest_text = 600
    long = ITEMS[9][0][0]["content"]
    ITEMS[9][0][0]["content"] = "Question 9? " * 60
    try:
        scores, _ = ask("openrlhf", desk)
    finally:
        ITEMS[9][0][0]["content"] = long
    assert [n for n, score in enumerate(scores) if isinstance(score, RowReject)] == [9]
    assert scores[9].reason == "bad_request"


def test_a_server_that_fails_now_and_then_leaves_rows_for_the_next_run(ask: Callable[..., Any]) -> None:
    scores, _ = ask("openrlhf", RewardDesk(last_number, statuses=(500,) * 8), concurrency=1)
    assert [score.retryable for score in scores if isinstance(score, RowReject)] == [True] * 16
    assert scores[16:] == EXPECTED[16:]


@pytest.mark.parametrize(
    ("model", "told"), [("openrlhf/rm@http://127.0.0.1:9", "connection"), ("vllm/rm@{url}/no", "404")]
)
def test_a_server_that_is_not_there_stops_the_run(loopback: Callable[..., Any], model: str, told: str) -> None:
    reward = load(model.format(url=loopback().url))
    with pytest.raises(ProviderStopped, match=told):
        score_items(reward, ITEMS, [""] * len(ITEMS))


def test_a_wrong_key_stops_the_run_and_is_not_told(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_API_KEY", "sk-secret-and-wrong")
    with pytest.raises(ProviderStopped, match="status 401") as error:
        ask("openrlhf")
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": "vllm/rm"}, "needs an address"),
        ({"model": "http/rm@http://h"}, r"reward\.request"),
        ({"model": "http/rm@http://h", "request": {"a": "$text"}}, r"reward\.scores"),
        ({"model": "http/rm@http://h", "request": {"a": "$txt"}, "scores": "x"}, r"unknown \$txt"),
        ({"model": "http/rm@http://h", "request": {"a": "$text", "b": "$texts"}, "scores": "x"}, "not both"),
        ({"model": "http/rm@http://h", "request": {"a": "b"}, "scores": "x"}, "expected some of"),
    ],
)
def test_a_mapping_that_cannot_be(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        rewards.check_settings(RewardSettings(**settings))


def test_the_wire_is_in_the_digest() -> None:
    one, same, other, moved = (
        load(f"vllm/rm@http://h{host}", endpoint=endpoint).digest
        for host, endpoint in ((1, "classify"), (1, "classify"), (1, "pooling"), (2, "classify"))
    )
    assert one == same and len({one, other, moved}) == 3


def test_a_run_with_a_reward_server(settings: Callable[..., CurationConfig], loopback: Callable[..., Any]) -> None:
    desk = RewardDesk(lambda text: None if "?" in text[-30:] else len(text) % 7)
    url = loopback(extensions=[desk.extend]).url
    manifest = curate(
        settings(reward__model=f"openrlhf/rm@{url}", reward__api_key_env="REWARD_API_KEY"), in_threads, Silent()
    ).manifest
    assert manifest["rows"]["read"] == manifest["rows"]["published"] + manifest["rows"]["rejected"]
    score = next(step for step in manifest["funnel"] if step["stage"] == "score")
    assert set(score["rejected"]) <= {"bad_reward"}
    assert manifest["models"]["reward"]["base_url"] == f"{url}/get_reward"
