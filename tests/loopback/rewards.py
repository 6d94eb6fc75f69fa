"""Reward servers' routes: vLLM's /classify, /score and /pooling, OpenRLHF's /get_reward, and /any for a mapping.

    desk = RewardDesk(lambda text: len(text))
    LoopbackServer(extensions=[desk.extend])

The rule sees what ends in the answer: the last message of a conversation, the whole text, or `text_2`. Answers come in
reverse order with their index, as no server promises any other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.loopback import openai_wire
from tests.loopback.app import error_response
from tests.loopback.engine import Engine

_USAGE = {"prompt_tokens": 1, "total_tokens": 1, "completion_tokens": 0}


class RewardDesk:
    """`alter` may change an answer before it is sent; `statuses` are given first, one a request; each takes
    `delay` seconds. `bodies`: what came."""

    def __init__(
        self,
        rule: Callable[[str], Any],
        alter: Callable[[dict[str, Any]], Any] = lambda answer: answer,
        statuses: tuple[int, ...] = (),
        delay: float = 0.0,
    ) -> None:
        self.rule, self.alter = rule, alter
        self.statuses = list(statuses)
        self.delay = delay
        self.bodies: list[dict[str, Any]] = []
        # Larger requests than this are refused, as of a text that is too long.
        self.longest_text = 10**9

    def extend(self, app: web.Application, engine: Engine) -> None:
        for path in ("classify", "score", "pooling", "get_reward", "any"):
            app.router.add_post(f"/{path}", self._checked(engine, getattr(self, f"_{path}")))

    def _checked(self, engine: Engine, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
        async def handle(http: web.Request) -> web.StreamResponse:
            if not engine.authorised(openai_wire, http):
                return error_response(openai_wire, 401, f"Incorrect key: {openai_wire.key_of(http.headers)}")
            body = json.loads(await http.read())
            self.bodies.append(body)
            await asyncio.sleep(self.delay)
            if self.statuses:
                return error_response(openai_wire, self.statuses.pop(0), "so it was wished")
            if len(json.dumps(body)) > self.longest_text:
                return error_response(openai_wire, 400, "this model's maximum context length is less")
            # Not web.json_response: a server may well write NaN.
            return web.Response(text=json.dumps(self.alter(answer(body))), content_type="application/json")

        return handle

    def _listed(self, name: str, scores: list[Any]) -> dict[str, Any]:
        data = [{"index": n, "object": name, **self._shaped(name, score)} for n, score in enumerate(scores)]
        return {"id": f"{name}-0", "object": "list", "model": "rm", "data": data[::-1], "usage": _USAGE}

    def _shaped(self, name: str, score: Any) -> dict[str, Any]:
        if name == "classify":
            return {"label": "LABEL_0", "probs": [score], "num_classes": 1}
        return {"score": score} if name == "score" else {"data": [score]}

    def _texts(self, body: dict[str, Any]) -> list[str]:
        if "messages" in body:
            return [body["messages"][-1]["content"]]
        given = body["input"]
        return [given] if isinstance(given, str) else list(given)

    def _classify(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._listed("classify", [self.rule(text) for text in self._texts(body)])

    def _pooling(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._listed("pooling", [self.rule(text) for text in self._texts(body)])

    def _score(self, body: dict[str, Any]) -> dict[str, Any]:
        pairs = list(zip(body["text_1"], body["text_2"], strict=True))
        return self._listed("score", [self.rule(answer) for _, answer in pairs])

    def _get_reward(self, body: dict[str, Any]) -> dict[str, Any]:
        assert len(body["prompts"]) == len(body["query"])
        return {"rewards": [self.rule(text) for text in body["query"]]}

    def _any(self, body: dict[str, Any]) -> dict[str, Any]:
        items = body["items"] if isinstance(body["items"], list) else [body["items"]]
        return {"out": {"results": [{"n": n, "reward": self.rule(text)} for n, text in enumerate(items)][::-1]}}
