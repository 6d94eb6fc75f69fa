"""Revision by branching: where an answer is begun again, which revision goes on, and the calls as the server sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.settings import ReviserSettings
from pipeline.prompts import Prompts
from pipeline.stages import branches
from pipeline.stages.revise import revise
from tests.loopback import LoopbackServer, Reply
from tests.loopback.chat import LENGTH, ChatRequest
from tests.models.asking import KEYS
from tests.stages.tables import Counter, model_for, row, table_for, the_reject

DRAFT = "Boil the egg for about 20 minutes, then peel it."
REFERENCE = "Give the egg six minutes for a runny yolk. Cold water stops the cooking, and makes it easy to peel."
MENDED = "Boil the egg for about six minutes. Cold water stops the cooking, so that it is easy to peel."


def tokens(*chosen: tuple[str, dict[str, float]]) -> list[list[list[Any]]]:
    """Log probabilities as an answer has them: of each token, itself and alternatives."""
    return [[[text, -0.5], *([other, logprob] for other, logprob in others.items())] for text, others in chosen]


def test_an_answer_is_begun_again_where_another_token_was_likeliest_and_after_its_end() -> None:
    written = tokens(
        *[("Boil", {"Give": -1.0}), (" it", {" It": -0.9, "\n": -0.9}), (" ten", {" six": -0.7}), ("", {" Then": -5.0})]
    )
    assert branches.beginnings(written, "Boil it ten", DRAFT, REFERENCE) == ["Boil it ten Then", "Boil it six"]


def test_no_other_first_word_but_another_token_of_the_same() -> None:
    written = tokens(('"', {"The": -0.2, '"B': -1.0}), ("Boil it", {}))
    assert branches.beginnings(written, '"Boil it', DRAFT, REFERENCE) == ['"B']


def test_nothing_that_could_only_add_or_copy() -> None:
    written = tokens((f"{DRAFT} Cold", {}), (" water.", {" wind": -1.0}), ("", {" And": -1.0}))
    assert branches.beginnings(written, f"{DRAFT} Cold water.", DRAFT, REFERENCE) == [f"{DRAFT} Cold wind"]
    assert branches.beginnings(written, REFERENCE, DRAFT, REFERENCE) == []


def test_only_so_many_places_and_none_that_is_unlikely() -> None:
    many = tokens(*((f" w{n}", {f" v{n}": -1.0 - n / 10}) for n in range(9)), (" end", {" fin": -9.0}))
    text = "".join(f" w{n}" for n in range(9)) + " end"
    found = branches.beginnings(many, text, DRAFT, REFERENCE)
    assert len(found) == branches.MOST and found[-1] == " w0 v1"
    assert branches.beginnings([], "", DRAFT, REFERENCE) == []


def test_half_a_character_begins_nothing() -> None:
    halves = tokens(("Boil", {}), ("\ufffd", {" a": -1.0}), ("\ufffd", {" b": -1.0}))
    assert branches.beginnings(halves, "Boilé", DRAFT, REFERENCE) == ["Boil a"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (MENDED, None),
        (f"  {DRAFT.upper()}", "unchanged"),
        (f"{DRAFT} Cold water stops the cooking.", "only_adds"),
        ("Boil the egg for a very long while, then enjoy it.", "not_grounded"),
        ("Boil the egg for about minutes, then peel it.", "no_nearer"),
        (REFERENCE.replace("runny", "soft"), "copies_reference"),
        (
            "Boil the egg for about six minutes. Cold water stops the cooking. The cooking stops in cold water.",
            "repeats",
        ),
        ("Boil the egg for about six minutes, as the facts say. Cold water stops the cooking.", "speaks_of_task"),
    ],
)
def test_a_revision_that_misses_a_condition(text: str, fault: str | None) -> None:
    assert branches.fault(text, DRAFT, REFERENCE) == fault


def test_where_the_reference_declines_the_revision_must_turn() -> None:
    draft, reference = (
        "Yes, give him half a tablet with his food.",
        "Please don't. It can damage a dog's kidneys within hours. Call a vet.",
    )
    kept = "Yes, give him half a tablet. It can damage his kidneys within hours."
    assert branches.fault(kept, draft, reference) == "does_not_turn"
    turned = "No, don't give him half a tablet. It can damage his kidneys within hours."
    assert branches.fault(turned, draft, reference) is None
    assert branches.diagnosis(draft, turned, reference) == "other"


def test_the_nearest_to_the_reference_goes_on_and_the_others_say_why_not() -> None:
    less = "Boil the egg for about six minutes, and it is easy to peel."
    assert branches.fault(less, DRAFT, REFERENCE) is None
    assert branches.best([DRAFT, less, MENDED, less], DRAFT, REFERENCE) == (MENDED, {"unchanged": 1})
    assert branches.best([DRAFT], DRAFT, REFERENCE)[0] is None


def test_the_diagnosis_says_what_was_mended() -> None:
    assert branches.diagnosis(DRAFT, MENDED, REFERENCE) == "lack_of_detail"
    assert branches.diagnosis(DRAFT, DRAFT.replace("20", "six"), REFERENCE) == "inaccuracy"
    assert branches.diagnosis(DRAFT, DRAFT.replace("about ", ""), REFERENCE) == "structure"


Run = Callable[[Callable[[ChatRequest], Reply]], tuple[Any, list[ChatRequest]]]


@pytest.fixture
def run(loopback: Callable[..., LoopbackServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def start(answer: Callable[[ChatRequest], Reply]) -> tuple[Any, list[ChatRequest]]:
        seen: list[ChatRequest] = []

        def behaviour(request: ChatRequest) -> Reply:
            seen.append(request)
            return answer(request)

        server = loopback(behaviour)
        monkeypatch.setenv(KEYS["openai"], server.key)
        rows = table_for("revise", [row(0, initial=DRAFT, reference=REFERENCE)])
        settings = ReviserSettings(
            model=f"openai/reviser@{server.openai_url}", api_key_env=KEYS["openai"], style="branches"
        )
        return revise(rows, settings, Prompts(), model_for(settings, tmp_path), Counter()), seen

    return start


def test_the_model_goes_on_from_another_token_and_the_mended_answer_is_taken(run: Run) -> None:
    def answer(request: ChatRequest) -> Reply:
        if request.messages[-1].role == "assistant":
            return Reply(MENDED)
        return Reply(DRAFT, chances={DRAFT[4:]: 0.6, " the egg for about six": 0.3, " so": 0.01})

    output, seen = run(answer)
    assert output.rows["revised"].to_pylist() == [MENDED]
    assert output.rows["diagnosis"].to_pylist() == ["lack_of_detail"]
    assert [request.messages[-1].text for request in seen[1:]] == ["Boil the egg for about six"]
    assert seen[0].messages == seen[1].messages[:-1]


def test_without_a_correction_the_row_leaves_and_says_why(run: Run) -> None:
    output, _ = run(lambda request: Reply(DRAFT, chances={DRAFT[4:]: 0.6, " it": 0.3}))
    reject = the_reject(output)
    assert (reject.reason, reject.evidence) == ("no_correction", {"refused": {"unchanged": 1}})


def test_answers_that_were_cut_are_no_candidates(run: Run) -> None:
    output, _ = run(lambda request: Reply(MENDED, finish=LENGTH))
    assert the_reject(output).evidence == {"refused": {}}
