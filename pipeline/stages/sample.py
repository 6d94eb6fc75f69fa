"""Sample: the SFT model answers every query, Ŷ ~ π(·|X)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import PolicySettings
from pipeline.errors import RowReject
from pipeline.models.chat import ChatModel, ChatRequest
from pipeline.models.event_loop import each_row
from pipeline.models.factory import request_params, system_prompt
from pipeline.stages.common import Report, collect, queries, row_seed
from pipeline.storage.stage_files import StageOutput


def sample(rows: pa.Table, settings: PolicySettings, policy: ChatModel, report: Report) -> StageOutput:
    """Adds `policy_model` and `initial`.

    Rejects: truncated (no EOS within max_tokens: nothing to align with), duplicate_sample (the words of another answer to the
    same query), and whatever kept a call from an answer.
    """
    spec = ModelSpec.parse(settings.model)

    async def answer(row: dict[str, Any]) -> dict[str, Any]:
        request = build_request(row, settings, spec)
        given = await policy.ask("sample", request)
        if given.finish == "length":
            raise RowReject("truncated", max_tokens=request.max_tokens).keeping(initial=given.text)
        return {"policy_model": policy.name, "initial": given.text.strip()}

    with policy.shard_lock:
        results = each_row(
            rows.select(["id", "messages"]).to_pylist(),
            answer,
            workers=policy.concurrency,
            done=lambda rejected: report(1, int(rejected)),
        )
        policy.raise_if_all_failed()
    unequal = _each_once(rows, results)
    report(0, sum(one is not other for one, other in zip(unequal, results, strict=True)))
    return collect(rows, schema.SAMPLE, unequal)


def _each_once(rows: pa.Table, results: Sequence[dict[str, Any] | RowReject]) -> list[dict[str, Any] | RowReject]:
    """The results, but of equal answers to a query only the first."""
    first: dict[tuple[int, str], int] = {}
    told: list[dict[str, Any] | RowReject] = []
    for index, (query, result) in enumerate(zip(queries(rows), results, strict=True)):
        if not isinstance(result, RowReject) and first.setdefault((query, result["initial"]), index) != index:
            same = rows["id"][first[query, result["initial"]]].as_py()
            result = RowReject("duplicate_sample", same_as=same).keeping(initial=result["initial"])  # noqa: PLW2901
        told.append(result)
    return told


def build_request(row: dict[str, Any], settings: PolicySettings, spec: ModelSpec) -> ChatRequest:
    messages = row["messages"]
    system = system_prompt(settings)
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    return ChatRequest(
        messages, settings.max_tokens, request_params(settings, spec, row_seed(settings.seed, row["id"]))
    )
