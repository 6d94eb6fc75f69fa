"""The routes. What belongs to one feature (batches, files) adds its own through `Extension`, in its own file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType

from aiohttp import web

from tests.loopback import anthropic_wire, openai_wire
from tests.loopback.engine import Engine

Extension = Callable[[web.Application, Engine], None]
"""Adds routes. `engine.authorised`, `engine.complete` and `wire.parse`/`wire.answer` are all that a batch needs."""

LARGEST_BODY = 256 * 2**20


def make_app(engine: Engine, extensions: Iterable[Extension] = ()) -> web.Application:
    app = web.Application(client_max_size=LARGEST_BODY)
    app.router.add_post("/v1/chat/completions", partial(engine.chat, openai_wire))
    app.router.add_post("/v1/messages", partial(engine.chat, anthropic_wire))
    app.router.add_get("/v1/models", partial(_models, engine))
    app.router.add_get("/v1/models/{name:.+}", partial(_model, engine))
    app.router.add_get("/_stats", partial(_stats, engine))
    app.router.add_post("/_reset", partial(_reset, engine))
    for extend in extensions:
        extend(app, engine)
    return app


def wire_of(http: web.Request) -> ModuleType:
    """For the paths that both providers use: Anthropic's clients always name their version."""
    return anthropic_wire if "anthropic-version" in http.headers else openai_wire


def error_response(wire: ModuleType, status: int, message: str) -> web.Response:
    return web.json_response(wire.error(status, message), status=status)


async def _models(engine: Engine, http: web.Request) -> web.Response:
    wire = wire_of(http)
    if not engine.authorised(wire, http):
        return error_response(wire, 401, "Incorrect API key provided.")
    return web.json_response(wire.models(engine.models or ["loopback"]))


async def _model(engine: Engine, http: web.Request) -> web.Response:
    wire, name = wire_of(http), http.match_info["name"]
    if not engine.authorised(wire, http):
        return error_response(wire, 401, "Incorrect API key provided.")
    if engine.models is not None and name not in engine.models:
        return error_response(wire, 404, f"The model `{name}` does not exist.")
    return web.json_response(wire.model(name))


async def _stats(engine: Engine, http: web.Request) -> web.Response:
    """`?records=1` adds every call."""
    return web.json_response(engine.ledger.stats(with_calls=http.query.get("records", "0") != "0"))


async def _reset(engine: Engine, http: web.Request) -> web.Response:
    engine.ledger.reset()
    return web.json_response({"reset": True})
