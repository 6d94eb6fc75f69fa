"""Ŷ ~ π(·|X): each row's request is its own, whatever the order; cut and empty answers leave the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model_names import ModelSpec
from pipeline.config.settings import PolicySettings
from pipeline.errors import RowReject
from pipeline.labels.templates import Messages
from pipeline.stages.common import row_seed
from pipeline.stages.sample import build_request, sample
from pipeline.storage.stage_files import StageOutput
from tests.loopback import LoopbackServer, Reply
from tests.loopback.chat import LENGTH, ChatRequest
from tests.stages.tables import Counter, check_accounting, model_for, reasons, row, table_for


@pytest.fixture
def run(
    loopback: Callable[..., LoopbackServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[StageOutput, list[ChatRequest]]]:
    """Sample rows from a policy that is a plain function; gives the output and what reached the server."""
    places = iter(range(99))

    def sampled(
        rows: list[dict[str, Any]],
        behaviour: Callable[[ChatRequest], Reply],
        *,
        render: Callable[[Messages], object] | None = None,
        **options: Any,
    ) -> tuple[StageOutput, list[ChatRequest]]:
        seen: list[ChatRequest] = []

        def watched(request: ChatRequest) -> Reply:
            seen.append(request)
            return behaviour(request)

        server = loopback(watched)
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        settings = PolicySettings(
            model=f"openai/policy@{server.openai_url}", api_key_env="OPENAI_API_KEY", attempts=1, **options
        )
        given, report = table_for("sample", rows), Counter()
        output = sample(given, settings, model_for(settings, tmp_path / str(next(places))), report, render)
        check_accounting("sample", given, output)
        assert report.seen == (len(rows), len(output.rejects))
        return output, seen

    return sampled


def by_seed(request: ChatRequest) -> Reply:
    return Reply(f"{request.last_user} {request.params['seed']}")


def test_a_conversation_that_the_template_refuses_is_not_paid(run: Callable[..., Any]) -> None:
    def render(messages: Messages) -> None:
        if messages[-1]["content"] == row(1)["messages"][-1]["content"]:
            raise RowReject("template_refuses", error="no such roles")

    output, seen = run([row(0), row(1)], by_seed, render=render)
    assert reasons(output) == {1: "template_refuses"}
    assert len(seen) == 1


def test_answers_land_on_their_rows_whatever_the_order(run: Callable[..., Any]) -> None:
    rows = [row(n) for n in range(12)]
    forward, _ = run(rows, by_seed, concurrency=5)
    backward, _ = run(rows[::-1], by_seed, concurrency=2)
    answers = dict(zip(forward.rows["id"].to_pylist(), forward.rows["initial"].to_pylist(), strict=True))
    assert answers == dict(zip(backward.rows["id"].to_pylist(), backward.rows["initial"].to_pylist(), strict=True))
    assert answers[rows[3]["id"]] == f"Question 3? {row_seed(0, rows[3]['id'])}"
    assert len({answer.split()[-1] for answer in answers.values()}) == 12, "each row has a seed of its own"


def test_the_runs_seed_changes_every_rows_seed(run: Callable[..., Any]) -> None:
    _, first = run([row(1), row(2)], by_seed)
    _, other = run([row(1), row(2)], by_seed, seed=7)
    seeds = [{request.params["seed"] for request in requests} for requests in (first, other)]
    assert len(seeds[0] | seeds[1]) == 4
    assert all(0 <= row_seed(2**31 - 1, id) < 2**31 for id in ("00000000", "ffffffffabc"))


def test_what_is_sent(run: Callable[..., Any]) -> None:
    output, (request,) = run([row(0)], by_seed, temperature=0.5, top_p=0.25, max_tokens=77, extra={"min_p": 0.125})
    assert request.model == "policy"
    assert request.system == ""
    assert request.raw["messages"] == row(0)["messages"]
    sent = {"temperature": 0.5, "top_p": 0.25, "max_tokens": 77, "min_p": 0.125, "seed": row_seed(0, row(0)["id"])}
    assert request.params == sent
    assert output.rows["policy_model"].to_pylist()[0].startswith("openai/policy@http://127.0.0.1")


def test_cut_and_empty_answers_leave_with_their_text(run: Callable[..., Any]) -> None:
    replies = {
        "Question 0?": Reply("  Fine.\n"),
        "Question 1?": Reply("It stops in the", LENGTH),
        "Question 2?": Reply(""),
        "Question 3?": Reply(" \n "),
        "Question 4?": Reply("four times nine letters " * 9),
    }
    output, _ = run([row(n) for n in range(5)], lambda request: replies[request.last_user], max_tokens=16)
    assert output.rows["initial"].to_pylist() == ["Fine."]
    assert reasons(output) == {1: "truncated", 2: "empty_answer", 3: "empty_answer", 4: "truncated"}
    cut = output.rejects[0]
    assert cut.evidence == {"max_tokens": 16}
    assert cut.columns == {"initial": "It stops in the"}
    assert output.rejects[3].columns["initial"] == ("four times nine letters " * 9)[:64]


def test_the_system_prompt_is_put_before_queries_that_have_none(run: Callable[..., Any]) -> None:
    own = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    _, requests = run([row(0), row(1, messages=own)], by_seed, system="Be brief.")
    assert {request.last_user: request.system for request in requests} == {"Question 0?": "Be brief.", "hi": "Be kind."}


def test_building_a_request_leaves_the_row_as_it_was() -> None:
    settings = PolicySettings(model="openai/m", system="Be brief.", extra={"a": 1})
    given = row(0)
    request = build_request(given, settings, ModelSpec.parse(settings.model))
    assert [m["role"] for m in request.messages] == ["system", "user"]
    assert given == row(0)
    assert settings.extra == {"a": 1}


def test_hostile_queries_are_sent_as_they_are(run: Callable[..., Any]) -> None:
    hostile = "{{7*7}} {x} ${HOME} \x00 \u202e 🜁"
    output, (request,) = run([row(0, messages=[{"role": "user", "content": hostile}])], lambda r: Reply(r.last_user))
    assert request.last_user == hostile
    assert output.rows["initial"].to_pylist() == [hostile]


def test_no_rows_ask_nothing(run: Callable[..., Any]) -> None:
    output, requests = run([], by_seed)
    assert (output.rows.num_rows, requests) == (0, [])


def test_of_equal_answers_to_a_query_only_the_first_goes_on(run: Callable[..., Any]) -> None:
    rows = [row(n, source_row=n // 3, sample_index=n % 3) for n in range(6)]
    rows[5]["messages"] = rows[3]["messages"]
    replies = {"Question 4?": "other"}
    output, _ = run(rows, lambda request: Reply(replies.get(request.last_user, "same")))
    assert reasons(output) == {1: "duplicate_sample", 2: "duplicate_sample", 5: "duplicate_sample"}
    assert output.rejects[2].evidence == {"same_as": rows[3]["id"]}
    assert output.rejects[2].columns == {"initial": "same"}


def test_control_tokens_of_any_family_are_cut_at_the_end_and_rejected_inside(run: Callable[..., Any]) -> None:
    endings = [
        "Fine.</s>",
        "Fine.<|im_end|>\n",
        "Fine. <|eot_id|><|start_header_id|>user",
        "[INST] Go on. [/INST] Fine.",
    ]
    output, _ = run([row(n) for n in range(4)], lambda request: Reply(endings[int(request.last_user.split()[1][:-1])]))
    assert output.rows["initial"].to_pylist() == ["Fine.", "Fine."]
    assert [(reject.reason, reject.evidence["token"]) for reject in output.rejects] == [
        ("special_token_in_text", "<|eot_id|>"),
        ("special_token_in_text", "[INST]"),
    ]
    assert all(reject.columns["initial"] for reject in output.rejects)
