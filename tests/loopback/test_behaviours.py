"""What the scripted models answer. Called directly: no socket is needed to see that."""

from __future__ import annotations

import json

import pytest

from pipeline.stages.edits import apply_edits, read_edits
from tests.loopback import (
    MISTAKES,
    ChatRequest,
    Reply,
    by_model,
    judge,
    make_policy,
    openai_wire,
    pipeline,
    policy,
    reviser,
)
from tests.loopback.behaviours import honour_schema
from tests.loopback.chat import complete
from tests.loopback.reviser import REASONS, blocks_of, revise

WRONG, RIGHT = next(iter(MISTAKES.items()))
REFERENCE = "Bread needs flour. Bread needs warm water and a pinch of salt."
TEXTS = (
    f"<query-0a1b2c3d>\nHow?\n</query-0a1b2c3d>\n<draft-0a1b2c3d>\nTake flour. {WRONG} It is good.\n</draft-0a1b2c3d>\n"
)
TEXTS += f"<reference-0a1b2c3d>\n{REFERENCE}\n</reference-0a1b2c3d>\n"
DIAGNOSE = TEXTS + "What is wrong: lack_of_detail, inaccuracy, structure or other?"


def request(*turns: str, system: str = "", schema: dict | None = None, **params: object) -> ChatRequest:
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(turns)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    if schema:
        params["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return openai_wire.parse({"model": "model-1", "messages": messages, **params}, {})


def test_policy_is_a_function_of_the_request():
    questions = [f"How do I bake sourdough bread number {index}?" for index in range(200)]
    answers = [policy(request(question)).text for question in questions]
    assert answers == [policy(request(question)).text for question in questions]
    assert len(set(answers)) > 150
    assert 80 < sum(any(mistake in answer for mistake in MISTAKES) for answer in answers) < 160
    assert all(
        "bake" in answer or "bread" in answer or "sourdough" in answer or "number" in answer for answer in answers
    )
    assert len({policy(request(questions[0], seed=seed)).text for seed in range(5)}) > 1


def test_policy_continues_under_a_higher_limit():
    short, long = request("How do planes fly?", max_tokens=10), request("How do planes fly?", max_tokens=500)
    cut, whole = complete(short, policy(short)), complete(long, policy(long))
    assert (cut.finish, whole.finish) == ("length", "stop")
    assert whole.text.startswith(cut.text)


def test_policy_knobs():
    questions = [request(f"question {index}") for index in range(300)]
    replies = [make_policy(mistake_rate=0, empty_rate=0.2, cut_rate=0.3)(question) for question in questions]
    assert 30 < sum(reply.text == "" for reply in replies) < 90
    assert 55 < sum(reply.finish == "length" for reply in replies) < 125
    assert not any(mistake in reply.text for reply in replies for mistake in MISTAKES)


def test_reviser_diagnoses_then_revises():
    reason = reviser(request(DIAGNOSE)).text
    assert reason == "inaccuracy"
    revised = reviser(request(DIAGNOSE, reason, "Now revise the draft.")).text
    assert revised.startswith(f"Take flour. {RIGHT} It is sound. Bread needs")
    assert revised.removeprefix(f"Take flour. {RIGHT} It is sound. ") in REFERENCE


def test_reviser_answers_inside_the_tag_it_is_shown():
    asked = "Put the new answer between <revised-0a1b2c3d> and </revised-0a1b2c3d>."
    revised = reviser(request(DIAGNOSE, "inaccuracy", asked)).text
    assert revised.startswith("<revised-0a1b2c3d>\nTake flour.")
    assert revised.endswith("\n</revised-0a1b2c3d>")


def test_reviser_fills_the_schema():
    one = {"type": "object", "properties": {"reason": {"type": "string", "enum": list(REASONS)}}}
    assert json.loads(reviser(request(DIAGNOSE, schema=one)).text) == {"reason": "inaccuracy"}
    two = {"type": "object", "properties": {"diagnosis": {"type": "string"}, "revised": {"type": "string"}}}
    assert json.loads(reviser(request(TEXTS, schema=two)).text)["revised"].startswith(f"Take flour. {RIGHT}")
    edit = {"type": "object", "properties": {"find": {"type": "string"}, "replace": {"type": "string"}}}
    edits = {"properties": {"edits": {"type": "array", "items": {"$ref": "#/$defs/Edit"}}}, "$defs": {"Edit": edit}}
    script = json.loads(reviser(request(TEXTS, schema=edits)).text)["edits"]
    assert script[0] == {"find": WRONG, "replace": RIGHT} and script[1]["find"] == "good."
    asked = reviser(request(f'{TEXTS}\nAnswer as JSON: {{"edits": []}}')).text
    assert read_edits(asked) == script
    draft, reference = blocks_of(TEXTS)["draft"], blocks_of(TEXTS)["reference"]
    assert apply_edits(draft, script) == (revise(draft, reference), script, [])


@pytest.mark.parametrize(
    ("draft", "reference", "reason"),
    [
        (WRONG, "", {"inaccuracy"}),
        ("Yes.", "A far longer answer than that.", {"lack_of_detail"}),
        ("a", "a", set(REASONS)),
    ],
)
def test_reasons(draft, reference, reason):
    text = f"<draft-00ff>{draft}</draft-00ff><reference-00ff>{reference}</reference-00ff> lack_of_detail or other?"
    assert reviser(request(text)).text in reason


def test_judge_lowers_the_score_for_mistakes():
    assert judge(request("A fine answer.")).text == "Score: 8"
    assert judge(request(f"{WRONG} {WRONG}")).text == "Score: 4"
    schema = {"properties": {"score": {"type": "integer"}, "why": {"type": "string"}}}
    assert json.loads(judge(request(WRONG, schema=schema)).text)["score"] == 6


def test_pipeline_sends_each_request_to_its_behaviour():
    assert pipeline(request(DIAGNOSE)).text == "inaccuracy"
    assert pipeline(request("An answer", system="Rate the answer from 1 to 10.")).text == "Score: 8"
    assert pipeline(request("How do planes fly?")) == policy(request("How do planes fly?"))


def test_by_model_and_honour_schema():
    behaviour = by_model({"model-1": lambda asked: Reply("one")})
    assert behaviour(request("Hi")).text == "one"
    assert by_model({})(request("Hi")).text == "Hi"
    asked = request("Hi", schema={"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}})
    assert honour_schema(asked, Reply("Hi")).text == '{"a": "Hi"}'
    assert honour_schema(asked, Reply('{"b": 1}')).text == '{"b": 1}'
