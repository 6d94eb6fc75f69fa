"""No query, password or key of an address reaches a file, a table or a message; what servers say is shown, not obeyed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from tenacity import wait_none

from pipeline.cli.main import main
from pipeline.config.addresses import conceal, reveal
from pipeline.config.loading import load_config
from pipeline.config.settings import CurationConfig
from pipeline.errors import ConfigError, InputError
from pipeline.models import retry
from pipeline.run import shards
from pipeline.text import one_line
from tests.conftest import as_arguments
from tests.loopback import LoopbackServer, behaviours
from tests.loopback.fixtures import loopback  # noqa: F401 - a fixture
from tests.loopback.rewards import RewardDesk

Settings = Callable[..., CurationConfig]
Start = Callable[..., LoopbackServer]
CANARY = "canary-5f3a9c1e7b"
SIGNED = "https://store.example/rows.jsonl?X-Amz-Signature=abc&part=1"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIGA_ADDRESSES", "{}")
    monkeypatch.setattr(retry, "_backoff", wait_none())


def holders(folder: Path, secret: str) -> list[Path]:
    found = [file for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]
    tables = [file for file in folder.rglob("*.parquet") if secret in str(pq.read_table(file).to_pylist())]
    return found + tables


def test_an_address_is_known_by_a_mark_and_its_secret_changes_nothing() -> None:
    marked = conceal(SIGNED)
    assert "abc" not in marked and "?" in marked and conceal(marked) == marked
    assert reveal(marked) == SIGNED
    assert conceal(SIGNED.replace("abc", "renewed")) == marked
    assert conceal(SIGNED.replace("part=1", "part=2")) != marked
    assert [conceal(one) for one in ("rows.jsonl", "https://h/x", "s3://b/what?.jsonl")] == [
        "rows.jsonl",
        "https://h/x",
        "s3://b/what?.jsonl",
    ]


def test_an_address_from_another_process_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    marked = conceal(SIGNED)
    monkeypatch.setenv("FIGA_ADDRESSES", "")
    with pytest.raises(ConfigError, match="give the whole setting again"):
        reveal(marked)


def test_settings_hold_no_query() -> None:
    config = load_config(
        flags={
            "source.input": SIGNED,
            "reward.model": "http/rm@http://h/any?key=abcdefgh,http/b@http://h/b?key=12345678",
        }
    )
    dumped = config.model_dump_json()
    assert "abc" not in dumped and "12345678" not in dumped
    assert load_config(base=json.loads(dumped)) == config


NESTED = {"user_token": CANARY, "options": {"headers": [{"Authorization": f"Bearer {CANARY}"}], "top_k": 5}}


def test_parameters_named_like_a_secret_are_masked_however_deep() -> None:
    config = load_config(flags={"policy.extra": NESTED, "reward.request": {"password": CANARY, "inputs": "$texts"}})
    dumped = config.model_dump_json()
    assert CANARY not in dumped and '"top_k":5' in dumped and '"inputs":"$texts"' in dumped
    assert reveal(config.policy.extra) == NESTED
    assert load_config(base=json.loads(dumped)) == config
    other = load_config(flags={"policy.extra": {"user_token": f"{CANARY}2"}})
    assert other.policy.extra["user_token"] != config.policy.extra["user_token"], "another secret, another digest"


def test_what_a_row_says_is_never_taken_for_a_mark() -> None:
    mark = load_config(flags={"policy.extra": NESTED}).policy.extra["user_token"]
    assert reveal({"text": f"which one is {mark}"}) == {"text": f"which one is {mark}"}


@pytest.mark.parametrize(
    "words",
    [
        [f"policy.extra={{password: {CANARY}"],
        [f"policy.extra {CANARY} authorization"],
        [f"policy.extra={CANARY}", "policy.extra.x=1"],
        [f"policy.extra=[{{password: {CANARY}}}]"],
        [f"reward.request=[{CANARY}]"],
        [f"source.input=https://ann:{CANARY}@host/rows.jsonl"],
        [f"run.runner_address=tls://ann:{CANARY}@host:1"],
        [f"source.decontaminate=https://ann:{CANARY}@host/x"],
        [f"labels.tokenizer=https://{CANARY}@host/x"],
    ],
)
def test_no_message_about_settings_repeats_a_secret(words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(assignments=words)
    assert CANARY not in str(caught.value)


def test_a_bad_line_of_a_file_of_settings_is_named_by_its_place(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"policy:\n  extra: {{password: {CANARY}\nreviser: [")
    with pytest.raises(ConfigError, match="line 3, column") as caught:
        load_config(file)
    assert CANARY not in str(caught.value)


def test_a_whole_run_with_secret_parameters(
    loopback: Start,  # noqa: F811
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bodies: list[str] = []

    @web.middleware
    async def note(http: web.Request, handler: Any) -> web.StreamResponse:
        bodies.append(await http.text())
        return await handler(http)  # type: ignore[no-any-return]

    server = loopback(behaviours.pipeline, extensions=[lambda app, engine: app.middlewares.append(note)])
    models = {f"{role}__model": f"openai/{role}@{server.openai_url}" for role in ("policy", "reviser")}
    config = settings(source__limit=12, policy__extra=NESTED, reviser__extra={"password": CANARY}, **models)
    shards.forget_contexts()
    assert main(["build", *as_arguments(config), "--prefect", "off"]) == 0
    assert sum(CANARY in body for body in bodies) >= 12
    assert main(["status", str(config.out)]) == 0
    told = capsys.readouterr()
    assert CANARY not in told.out + told.err and not holders(config.out, CANARY)


@pytest.mark.parametrize(
    "flags", [{"source.input": 3}, {"policy.model": SIGNED}, {"reward.model": f"httpp/rm@{SIGNED}"}]
)
def test_no_message_about_a_setting_repeats_a_query(flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(flags=flags)
    assert "abc" not in str(caught.value)


def test_an_input_that_is_refused_is_named_without_its_signature(loopback: Start, tmp_path: Path) -> None:  # noqa: F811
    from pipeline.sources import resolve

    async def refuse(http: web.Request) -> web.Response:
        return web.Response(status=403, text=f"no {http.query_string}")

    server = loopback(extensions=[lambda app, engine: app.router.add_get("/rows.jsonl", refuse)])
    config = load_config(flags={"source.name": "jsonl", "source.input": f"{server.url}/rows.jsonl?sig={CANARY}"})
    with pytest.raises(InputError) as caught:
        resolve.resolve_one(config.source, lambda message: None)
    assert "rows.jsonl" in str(caught.value) and CANARY not in str(caught.value)


def test_a_whole_run_with_a_signed_input_and_a_reward_address_with_a_key(
    loopback: Start,  # noqa: F811
    settings: Settings,
    rows_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    desk = RewardDesk(lambda text: len(text) / 1000, statuses=(400, 400))
    asked: list[str] = []

    @web.middleware
    async def note(http: web.Request, handler: Any) -> web.StreamResponse:
        asked.append(str(http.rel_url))
        return await handler(http)  # type: ignore[no-any-return]

    async def rows(http: web.Request) -> web.Response:
        return web.Response(body=rows_file.read_bytes(), content_type="application/jsonl")

    def extend(app: web.Application, engine: Any) -> None:
        app.middlewares.append(note)
        app.router.add_get("/signed.jsonl", rows)

    server = loopback(extensions=[extend, desk.extend], key=None)
    config = settings(
        source__limit=12,
        source__input=f"{server.url}/signed.jsonl?X-Amz-Signature={CANARY}&user=ann",
        reward__model=f"http/rm@{server.url}/any?key={CANARY}",
        reward__request={"inputs": "$texts"},
        reward__scores="results.*.score",
        reward__index="results.*.index",
        reward__batch_size=1,
    )
    shards.forget_contexts()
    assert main(["build", *as_arguments(config), "--prefect", "off"]) in (0, 1)
    told = capsys.readouterr()
    assert any(one.startswith("/signed.jsonl") and CANARY in one for one in asked)
    assert any(one.startswith("/any") and CANARY in one for one in asked)
    assert CANARY not in told.out + told.err
    assert not holders(config.out, CANARY)
    assert not holders(config.out, "user=ann")


def test_what_servers_and_libraries_say_is_visible() -> None:
    said = one_line(f"\x1b[2Jno \u202egnp\u202c\x07 https://ann:pw@h/x?sig={CANARY} end")
    assert said == "<001b>[2Jno <202e>gnp<202c><0007> https://…@h/x?… end"
