"""Models that think: their thoughts are no part of an answer, have room of their own, and are paid for, through both SDKs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import PolicySettings, ReviserSettings
from pipeline.errors import RowReject
from pipeline.models import adaptation, factory
from pipeline.models.chat import THOUGHT_TOKENS, ChatModel
from pipeline.models.cost import Budget
from pipeline.models.event_loop import run
from pipeline.models.journal import Journal
from pipeline.models.request import Answer, ChatRequest
from pipeline.models.thoughts import control_token, split_thoughts, without_end_tokens
from pipeline.schema import digest
from tests.loopback import LoopbackServer
from tests.loopback.batches import BatchDesk
from tests.loopback.behaviours import echo, thinking
from tests.loopback.chat import BadRequest
from tests.models.asking import KEYS, address, ask, request
from tests.models.batching import ask_together, model_in_batches

Loopback = Callable[..., LoopbackServer]
SPELLINGS = "reasoning_content reasoning thinking details parts hidden think prompted magistral harmony bare".split()


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in KEYS.values():
        monkeypatch.setenv(variable, "sk-loopback")


def thinker(server: LoopbackServer, folder: Path, provider: str = "openai", **settings: Any) -> ChatModel:
    chosen = PolicySettings(
        model=f"{provider}/model-1@{address(server, provider)}",
        **{"attempts": 1, "api_key_env": KEYS[provider], **settings},
    )
    journal = Journal(folder / "journal.db")
    return factory.chat_model(chosen, journal=journal, budget=Budget(None, 0), local_file=Path)


@pytest.mark.parametrize(
    ("text", "answer", "thoughts"),
    [
        ("<think>a</think>b", "b", "a"),
        ("<think>\n\n</think>\n\nHi", "Hi", ""),
        ("a.\n</think>\n\nb", "b", "a."),
        ("a.</think>b", "b", "a."),
        ("</think>\n\nHi", "Hi", ""),
        ("<think>never ends", "", "never ends"),
        ("<think>a</think>\n<think>b</think>c", "c", "a\n\nb"),
        ("<THINK>a</THINK>b", "b", "a"),
        ("<thinking>x</thinking>\nHi", "Hi", "x"),
        ("[THINK]x[/THINK]Hi", "Hi", "x"),
        ("◁think▷x◁/think▷Hi", "Hi", "x"),
        ("<seed:think>x</seed:think>Hi", "Hi", "x"),
        ("<|channel>thought\nx<channel|>Hi", "Hi", "x"),
        ("Sure.\n<think>\nhm\n</think>\n\nYes.", "Sure.\n\nYes.", "hm"),
        ("<think>say `</think>` ok</think>Hi", "Hi", "say `</think>` ok"),
        ('<think>He said "hi"</think>Hi', "Hi", 'He said "hi"'),
        ("<think><revised-0a>no</revised-0a></think><revised-0a>yes", "<revised-0a>yes", "<revised-0a>no</revised-0a>"),
        ("<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>", "Hi", "x"),
        ("x<|end|><|start|>assistant<|channel|>final<|message|>Hi", "Hi", "x"),
        ("<|channel|>analysis<|message|>x", "", "x"),
        ("analysisWe agree.assistantfinalHi", "Hi", "We agree."),
        # Texts about tags are texts.
        ("Put it between <think> and </think> tags.", None, ""),
        ("The </think> tag ends it.", None, ""),
        ("It ends with `</think>`.", None, ""),
        ("Like this:\n```\n<think>\na\n</think>\n```\nDone.", None, ""),
        ("In <thinking> we trust", None, ""),
        ("analysis of the final", None, ""),
        ("", "", ""),
    ],
)
def test_thoughts_in_a_text(text: str, answer: str | None, thoughts: str) -> None:
    said, thought = split_thoughts(text)
    assert (said.strip(), thought) == (text if answer is None else answer, thoughts)
    assert split_thoughts(said) == (said, "")


def test_hostile_texts_are_read_in_linear_time() -> None:
    for text in (
        "</think> <think>" * 20_000,
        "x\n<think>\na\n</think>\n" * 20_000,
        "<|channel|>final<|message|>" * 20_000,
    ):
        split_thoughts(text)
    for text in ("<|im_end|> " * 20_000, " " * 200_000 + "x>", "<|a" * 100_000, "[|" * 100_000):
        without_end_tokens(text), control_token(text)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_place_that_servers_put_thoughts_in(loopback: Loopback, tmp_path: Path, spelling: str) -> None:
    model = thinker(loopback(thinking(echo, spelling)), tmp_path, reasoning_tokens=1000)
    answer = ask(model, "The answer.", 50)
    assert (answer.text.strip(), answer.finish, answer.reasoned, answer.max_tokens) == (
        "The answer.",
        "stop",
        True,
        1050,
    )
    assert answer.reasoning is None if spelling == "hidden" else str(answer.reasoning).startswith("Let me think.")
    assert "Let me" not in answer.text


@pytest.mark.parametrize("spelling", ["blocks", "redacted"])
def test_anthropics_blocks(loopback: Loopback, tmp_path: Path, spelling: str) -> None:
    answer = ask(thinker(loopback(thinking(echo, spelling)), tmp_path, "anthropic", reasoning_tokens=2000), "Hi.", 50)
    assert (answer.text, answer.reasoned, bool(answer.reasoning)) == ("Hi.", True, spelling == "blocks")


@pytest.mark.parametrize("spelling", ["think", "magistral", "harmony", "reasoning_content", "hidden", "parts"])
def test_room_is_made_once_an_answer_shows_thoughts(loopback: Loopback, tmp_path: Path, spelling: str) -> None:
    """No setting says that the model thinks: the first answer does, and is asked for again; a later run knows."""
    server = loopback(thinking(echo, spelling))
    for calls in (3, 0):
        adaptation.adaptation_for.cache_clear()
        model = thinker(server, tmp_path)
        assert [ask(model, text, 24).text.strip() for text in ("One.", "Two.")] == ["One.", "Two."]
        assert (model.calls, model.room) == (calls, THOUGHT_TOKENS)
        model.journal.close()


@pytest.mark.parametrize(
    "words",
    [
        "'max_tokens' is too large: {0}. This model's maximum context length is 4096 tokens, your request has 9 input tokens",
        "max_tokens: {0} > 4096, which is the maximum allowed number of output tokens for model-1",
    ],
)
def test_a_small_context_gets_less_room(loopback: Loopback, tmp_path: Path, words: str) -> None:
    def small(request: Any) -> Any:
        if request.max_tokens > 4096 - 9:
            raise BadRequest(words.format(request.max_tokens), "max_tokens")
        return thinking(echo, "think")(request)

    model = thinker(loopback(small), tmp_path)
    assert ask(model, "Fine.", 24).max_tokens == 24 + THOUGHT_TOKENS // 4
    with pytest.raises(RowReject) as caught:
        ask(thinker_again(model, 5000), "Good.", 24)
    assert caught.value.reason == "bad_request", "what a setting says is not changed"


def test_a_plain_model_gets_no_room(loopback: Loopback, tmp_path: Path) -> None:
    limits = []

    def plain(request: Any) -> Any:
        limits.append(request.max_tokens)
        return echo(request)

    model = thinker(loopback(plain), tmp_path)
    assert (ask(model, "Hi.", 50).text, ask(model, "A long text. " * 20, 5).finish) == ("Hi.", "length")
    assert (limits, model.room) == ([50, 5], 0)


@pytest.mark.parametrize("spelling", ["think", "reasoning_content", "hidden", "harmony", "parts"])
def test_an_answer_that_is_all_thought_says_so_with_numbers(loopback: Loopback, tmp_path: Path, spelling: str) -> None:
    model = thinker(loopback(thinking(echo, spelling)), tmp_path, reasoning_tokens=40)
    for _ in range(2):
        with pytest.raises(RowReject) as caught:
            ask(model, "The answer.", 10)
        assert caught.value.reason == "reasoning_used_all_tokens"
        assert caught.value.evidence.items() >= {"limit": 50, "completion_tokens": 50, "finish": "length"}.items()
        assert "raise reasoning_tokens" in caught.value.evidence["hint"]
    assert model.calls == 1
    assert ask(thinker_again(model, 1000), "The answer.", 10).text.strip() == "The answer."


def thinker_again(model: ChatModel, room: int) -> ChatModel:
    model.reasoning_tokens = room
    return model


@pytest.mark.parametrize(
    ("provider", "settings", "sent", "limit"),
    [
        ("openai", {}, {}, 50),
        ("openai", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}, 50 + THOUGHT_TOKENS),
        ("openai", {"reasoning_effort": "none"}, {"reasoning_effort": "none"}, 50),
        ("openai", {"reasoning_effort": "low", "reasoning_tokens": 7}, {"reasoning_effort": "low"}, 57),
        ("anthropic", {}, {}, 50),
        ("anthropic", {"reasoning_tokens": 2000}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, 2050),
        (
            "anthropic",
            {"reasoning_effort": "high"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            50 + THOUGHT_TOKENS,
        ),
        ("anthropic", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, 50),
    ],
)
def test_what_is_sent(
    loopback: Loopback, tmp_path: Path, provider: str, settings: dict[str, Any], sent: dict[str, Any], limit: int
) -> None:
    seen: list[Any] = []

    def watch(request: Any) -> Any:
        seen.append(request)
        return echo(request)

    server = loopback(watch)
    chosen = ReviserSettings(model=f"{provider}/m@{address(server, provider)}", api_key_env=KEYS[provider], **settings)
    journal = Journal(tmp_path / "journal.db")
    model = factory.chat_model(chosen, journal=journal, budget=Budget(None, 0), local_file=Path)
    params = factory.request_params(chosen, ModelSpec.parse(chosen.model), 0)
    run(model.ask("revise", ChatRequest([{"role": "user", "content": "Hi."}], 50, params)))
    names = ("reasoning_effort", "thinking", "output_config")
    assert {name: value for name, value in seen[0].params.items() if name in names} == sent
    assert seen[0].max_tokens == limit


@pytest.mark.parametrize("provider", KEYS)
def test_batches_are_read_alike(loopback: Loopback, tmp_path: Path, provider: str) -> None:
    server = loopback(thinking(echo, "reasoning_content"), extensions=BatchDesk().extensions)
    journal = Journal(tmp_path / "journal.db")
    model = model_in_batches(address(server, provider), journal, provider, reasoning_tokens=2000)
    answers = [answer for answer in ask_together(model, ["One.", "Two."]) if not isinstance(answer, RowReject)]
    assert [(answer.text, bool(answer.reasoning)) for answer in answers] == [("One.", True), ("Two.", True)]


def test_a_judges_probabilities_are_those_of_its_mark(loopback: Loopback, tmp_path: Path) -> None:
    """A server that lists log probabilities of the thoughts as well: they are left out of the answer's."""
    from pipeline.models.reading import read_openai

    tokens = [{"token": t, "logprob": -0.5, "top_logprobs": []} for t in ("Is it ", "3", " or 9", "?", "</think>", "7")]
    body = {
        "choices": [
            {
                "finish_reason": "stop",
                "message": {"content": "7", "reasoning_content": "Is it 3 or 9?"},
                "logprobs": {"content": tokens},
            }
        ]
    }
    assert read_openai(body, "m", 100, None).logprobs == [[["7", -0.5]]]


def test_thoughts_in_an_older_journal_are_no_part_of_its_answers(loopback: Loopback, tmp_path: Path) -> None:
    """Before there was a reading of thoughts, they were journalled as text."""
    model = thinker(loopback(echo), tmp_path)
    asked, told = request("Hi."), "<think>Hm.</think>\n\nFine."
    key = digest(model.identity, asked.messages, asked.params)
    run(model.journal.keep(key, "sample", model.name, Answer(told, "stop", 200, 5, 9), 0.25))
    answer = ask(model, "Hi.")
    assert (answer.text, answer.reasoning, model.calls) == ("Fine.", "Hm.", 0)
