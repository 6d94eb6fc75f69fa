"""Sample: the SFT model answers every query, Ŷ ~ π(·|X)."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import PolicySettings
from pipeline.errors import RowReject
from pipeline.labels.templates import Messages, with_system
from pipeline.models.chat import ChatModel, OnProgress
from pipeline.models.factory import request_params, system_prompt
from pipeline.models.request import Answer, ChatRequest
from pipeline.stages.common import check_control_tokens, cut_off, query_groups, row_seed
from pipeline.storage.stage_files import RowResult, StageOutput, collect


def sample(
    rows: pa.Table,
    settings: PolicySettings,
    policy: ChatModel,
    on_progress: OnProgress,
    render: Callable[[Messages], object] | None = None,
) -> StageOutput:
    """Adds `policy_model`, `initial`, of models that think `initial_reasoning`, and on request `initial_tokens`.

    render: the labels' template, where it may refuse a conversation, which is then rejected before the policy is called.

    Rejects: template_refuses, truncated (no EOS within max_tokens: nothing to align with), special_token_in_text,
    duplicate_sample (the words of another answer to the same query), and those of `ChatModel.ask`.
    """
    spec = ModelSpec.parse(settings.model)

    async def answer(row: dict[str, Any]) -> dict[str, Any]:
        if render:
            render(row["messages"])
        request = build_request(row, settings, spec)
        response = await policy.ask("sample", request)
        if response.finish == "length":
            reject = cut_off("truncated", request.max_tokens, response)
            raise reject.with_columns(initial=response.text)
        initial = response.text.strip()
        try:
            check_control_tokens(initial)
        except RowReject as reject:
            raise reject.with_columns(initial=initial) from None
        values = {"policy_model": policy.name, "initial": initial, "initial_reasoning": response.reasoning}
        return values | ({"initial_tokens": _tokens(response)} if settings.logprobs else {})

    results = policy.each_row(rows.select(["id", "messages"]).to_pylist(), answer, on_progress)
    on_progress(0, _reject_duplicates(rows, results))
    added = schema.SAMPLE.append(schema.INITIAL_TOKENS) if settings.logprobs else schema.SAMPLE
    return collect(rows, added, results)


def _tokens(response: Answer) -> list[dict[str, Any]] | None:
    """The server's tokens with their log-probs; None where it gives none, or not of all."""
    tokens = response.logprobs or []
    return [{"text": t[0][0], "logprob": t[0][1]} for t in tokens] if tokens and all(tokens) else None


def _reject_duplicates(rows: pa.Table, results: list[RowResult]) -> int:
    """Of equal answers to a query keep the first. Returns the number of rejects."""
    rejected = 0
    for group in query_groups(rows):
        first: dict[str, int] = {}
        for index in group:
            result = results[index]
            if isinstance(result, RowReject) or first.setdefault(result["initial"], index) == index:
                continue
            same = rows["id"][first[result["initial"]]].as_py()
            results[index] = RowReject("duplicate_sample", same_as=same).with_columns(initial=result["initial"])
            rejected += 1
    return rejected


def build_request(row: dict[str, Any], settings: PolicySettings, spec: ModelSpec) -> ChatRequest:
    messages = with_system(row["messages"], system_prompt(settings))
    params = request_params(settings, spec, row_seed(settings.seed, row["id"]))
    params |= {"logprobs": True} if settings.logprobs else {}
    return ChatRequest(messages, settings.max_tokens, params)
