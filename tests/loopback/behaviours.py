"""Scripted answers: what the model would say. Each depends on the request alone.

echo       the last user turn, as it came
policy     a pseudo-answer of 2-5 sentences to the last user turn, often with a mistake that `reviser` mends
judge      a score from 1 to 10, lower for each known mistake
fair       a judge that answers the prompts of this project; always_first, one that can't judge
reviser    diagnoses and revises drafts (tests/loopback/reviser.py)
pipeline   all of these on one server: what is asked decides who answers
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from tests.loopback import schema
from tests.loopback.chat import LENGTH, Behaviour, ChatRequest, Reply, number_from
from tests.loopback.reviser import MISTAKES, blocks_of, reviser

_SENTENCES = (
    "The short answer is that {a} depends on {b} more than most people think.",
    "In practice, {a} works best when {b} is kept simple and checked often.",
    "It helps to look at {a} first, and to come back to {b} once that is clear.",
    "Many guides treat {a} and {b} as one thing, but they are not the same.",
    "A good first step is to write down what you know about {a}.",
    "If {b} is new to you, start small and take notes as you go.",
    "Experts agree that {a} takes time, so plan for a few tries.",
    "You can test this yourself by changing {b} and watching what happens.",
)
_SMALL_WORDS = frozenset(
    "about after also been before being could does from have into just like make more most much only other over please "
    "should some such than that their them then there these they this those very what when where which while will with "
    "would your human assistant".split()
)


def echo(request: ChatRequest) -> Reply:
    return Reply(request.last_user)


def make_policy(*, mistake_rate: float = 0.6, empty_rate: float = 0.0, cut_rate: float = 0.0) -> Behaviour:
    """A policy of which the given shares of answers hold a mistake, are empty, or stop in the middle (`length`).

    A higher `max_tokens` gives the same answer, only longer: the limit isn't part of what the text is built from.
    """

    def policy(request: ChatRequest) -> Reply:
        seed = (request.model, request.last_user, request.params.get("seed"), request.params.get("metadata"))
        chance = (number_from("kind", *seed) % 1000) / 1000
        if chance < empty_rate:
            return Reply("")
        text = _answer(request.last_user, seed, mistake_rate)
        if chance < empty_rate + cut_rate:
            return Reply(text[: len(text) // 2], LENGTH)
        return Reply(text)

    return policy


policy = make_policy()


def _answer(query: str, seed: tuple[object, ...], mistake_rate: float) -> str:
    words = [word for word in re.findall(r"[^\W\d_]{4,}", query) if word.lower() not in _SMALL_WORDS][:200]
    words = words or ["this", "that"]
    count = 2 + number_from("count", *seed) % 4
    first = number_from("first", *seed)
    sentences = []
    for place in range(count):
        template = _SENTENCES[(first + 3 * place) % len(_SENTENCES)]
        pick = number_from("word", place, *seed)
        sentences.append(template.format(a=words[pick % len(words)], b=words[(pick // 7) % len(words)]))
    if number_from("mistake", *seed) % 1000 < mistake_rate * 1000:
        sentences[count // 2] += " " + list(MISTAKES)[number_from("which", *seed) % len(MISTAKES)]
    return " ".join(sentences)


def always_first(request: ChatRequest) -> Reply:
    """A judge of two replies that prefers the first one, whatever they are."""
    return Reply("A", chances={"A": 0.9, "B": 0.1})


def fair(request: ChatRequest) -> Reply:
    """A judge by known mistakes: a mark from 1 to 9 of the block `answer`, or the better one of `reply_a` and `reply_b`."""
    shown = blocks_of(request.last_user)
    marks = {name: max(1, 8 - 2 * sum(text.count(m) for m in MISTAKES)) for name, text in shown.items()}
    if "answer" in marks:
        mark = marks["answer"]
        return Reply(str(mark), chances={str(mark): 0.75, str(mark + 1): 0.25})
    ahead = marks["reply_a"] - marks["reply_b"]
    return Reply("tie" if not ahead else "A" if ahead > 0 else "B")


def judge(request: ChatRequest) -> Reply:
    """8, two less for each known mistake, one more for a long answer. JSON if a schema asks, else `Score: N`."""
    text = request.last_user
    wrong = sum(text.count(mistake) for mistake in MISTAKES)
    score = min(10, max(1, 8 - 2 * wrong + (len(text) > 800)))
    if request.schema is None:
        return Reply(f"Score: {score}")
    known = {
        name: score
        for name, field in request.schema.get("properties", {}).items()
        if field.get("type") in ("integer", "number")
    }
    return Reply(schema.as_json(request.schema, f"Score: {score}", known))


def pipeline(request: ChatRequest) -> Reply:
    """A draft goes to the reviser, a system text that speaks of scores to the judge, all else to the policy."""
    if any("draft" in blocks_of(turn) for turn in request.user_turns):
        return reviser(request)
    if {"answer", "reply_a"} & blocks_of(request.last_user).keys():
        return fair(request)
    if re.search(r"\b(score|rate|rating|judge)\b", request.system, re.IGNORECASE):
        return judge(request)
    return policy(request)


def thinking(behaviour: Behaviour, spelling: str, words: int = 60) -> Behaviour:
    """The behaviour, which thinks before it answers: aloud about our tags, all reasons and marks, none of them the answer's."""

    def think(request: ChatRequest) -> Reply:
        tags = re.findall(r"<revised-[0-9a-f]+>", request.last_user)
        wrong = f"{tags[-1]}I am no revision.{tags[-1].replace('<', '</')}" if tags else ""
        named = 'Is it lack_of_detail, inaccuracy, structure or other? A or B? 3 or 7 of 9? {"reason": "other"}'
        thoughts = f"Let me think. {wrong} {named} {'Hmm, wait. ' * words}".strip()
        return replace(behaviour(request), thoughts=thoughts, spelling=spelling)

    return think


def by_model(behaviours: Mapping[str, Behaviour], default: Behaviour = echo) -> Behaviour:
    """One behaviour a model name."""
    return lambda request: behaviours.get(request.model, default)(request)


def honour_schema(request: ChatRequest, reply: Reply) -> Reply:
    """A behaviour that answers plain text still answers JSON where a schema was asked for."""
    if request.schema is None or reply.text is None or not reply.text.strip() or reply.finish != "stop":
        return reply
    try:
        json.loads(reply.text)
    except ValueError:
        return replace(reply, text=schema.as_json(request.schema, reply.text), chances=None)
    return reply


BEHAVIOURS: dict[str, Behaviour] = {
    "echo": echo,
    "policy": policy,
    "judge": judge,
    "fair": fair,
    "always_first": always_first,
    "reviser": reviser,
    "pipeline": pipeline,
}
