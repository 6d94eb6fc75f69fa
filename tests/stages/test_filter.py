"""Every way to leave at the filter, and the ordinary answers that must not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.settings import FilterSettings, LabelSettings
from pipeline.errors import RowReject
from pipeline.labels.loading import load_tokenizer
from pipeline.labels.tokenizer import LabelTokenizer
from pipeline.stages.filter import filter_revisions
from pipeline.stages.revision_checks import check_text, rouge_l
from pipeline.storage.stage_files import StageOutput
from tests.stages.tables import Counter, TinyReward, check_accounting, reasons, row, table_for, the_reject

INITIAL, REVISED = "The sun rises in the west.", "The sun rises in the east."


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path) -> LabelTokenizer:
    return load_tokenizer(tiny_tokenizer, LabelSettings(max_length=128), "tiny")


@pytest.fixture
def run(tokenizer: LabelTokenizer) -> Callable[..., StageOutput]:
    def filtered(
        *rows: dict[str, Any], score: Callable[[str], float] = lambda text: 1.0, **options: Any
    ) -> StageOutput:
        given, report = table_for("filter", rows), Counter()
        gates = FilterSettings(**{"min_reward_gain": 0, **options})
        output = filter_revisions(given, gates, tokenizer, TinyReward(score), report)
        check_accounting("filter", given, output)
        assert report.seen == (len(rows), len(output.rejects))
        return output

    return filtered


def test_a_good_revision_goes_on_with_what_was_measured(run: Callable[..., StageOutput], tokenizer: Any) -> None:
    (kept,) = run(row(0)).rows.to_pylist()
    initial, revised = tokenizer.tokenize(kept["messages"], INITIAL, REVISED)
    assert kept["revised_input_ids"] == revised.ids
    assert kept["initial_input_ids"] == initial.ids
    assert kept["prompt_input_ids"] == revised.ids[: revised.prompt_length]
    assert (kept["revised_words"], kept["initial_words"]) == ([], [])
    assert 0 < kept["edit_distance"] < 0.8
    assert kept["reward_revised"] == 1.0


@pytest.mark.parametrize("granularity", ["word", "phrase"])
def test_words_go_on_where_labels_need_them(tiny_tokenizer: Path, granularity: Any) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer, LabelSettings(granularity=granularity), "tiny")
    output = filter_revisions(
        table_for("filter", [row(0)]), FilterSettings(), tokenizer, TinyReward(lambda text: 1.0), Counter()
    )
    (kept,) = output.rows.to_pylist()
    initial, revised = tokenizer.tokenize(kept["messages"], INITIAL, REVISED)
    assert (kept["revised_words"], kept["initial_words"]) == (revised.words, initial.words)
    assert len(revised.words) == len(revised.response_ids)


def test_each_row_leaves_for_its_own_reason(run: Callable[..., StageOutput]) -> None:
    rows = {
        "empty_revision": row(0, revised=" \n"),
        "meta_talk": row(1, revised=f"Here is the revised response: {REVISED}"),
        "refusal": row(2, revised="I'm sorry, but I can't help with that."),
        "unchanged": row(3, revised=INITIAL),
        "too_different": row(4, revised="Bananas, kettles; 42 quick frogs? Yes!"),
        "special_token_in_text": row(5, revised=f"{REVISED}<|im_end|>"),
        "too_long": row(6, revised=REVISED + " And again." * 60),
        "bad_reward": row(7, revised="The sun rises in the NaN."),
        "reward_gain_too_small": row(8, revised="The sun rises in the south."),
    }
    scores = {"The sun rises in the NaN.": math.nan, "The sun rises in the south.": -1.5}
    output = run(row(9), *rows.values(), row(10), score=lambda text: scores.get(text, 1.0))
    assert output.rows["source_row"].to_pylist() == [9, 10]
    assert reasons(output) == dict(enumerate(rows, start=1))
    left = {reject.reason: reject for reject in output.rejects}
    assert left["meta_talk"].evidence["found"] == "Here is the revised response"
    assert left["refusal"].evidence["found"].startswith("I'm sorry, but I can't help")
    assert left["unchanged"].columns == {"edit_distance": 0.0}
    assert left["too_different"].columns["edit_distance"] > left["too_different"].evidence["at_most"] == 0.8
    assert left["special_token_in_text"].evidence == {"token": "<|im_end|>"}
    assert left["too_long"].evidence["tokens"] > left["too_long"].evidence["max_length"] == 128
    assert left["bad_reward"].evidence == {"reward_revised": "nan"}
    assert left["bad_reward"].columns["edit_distance"] > 0
    assert left["reward_gain_too_small"].evidence == {"reward_gain": -0.5, "at_least": 0.0}
    assert left["reward_gain_too_small"].columns["reward_revised"] == -1.5
    assert left["reward_gain_too_small"].columns["edit_distance"] > 0


def test_a_response_that_joins_the_prompt_is_refused(tiny_tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    own = AutoTokenizer.from_pretrained(tiny_tokenizer)
    own.chat_template = "{{ messages[0]['content'] }} {{ (messages[1]['content'] + eos_token) if messages[1:] }}"
    given = table_for("filter", [row(0)])
    joined = LabelTokenizer(own, LabelSettings(), "joined")
    output = filter_revisions(given, FilterSettings(), joined, TinyReward(lambda text: 1.0), Counter())
    assert the_reject(output).reason == "token_across_boundary"


def test_only_rows_that_are_near_are_scored(tokenizer: LabelTokenizer) -> None:
    reward = TinyReward(lambda text: 1.0)
    given = table_for("filter", [row(0, revised=INITIAL), row(1), row(2, revised="")])
    filter_revisions(given, FilterSettings(), tokenizer, reward, Counter())
    assert reward.asked == [(row(1)["messages"], REVISED)]


def test_scores_land_on_their_rows(run: Callable[..., StageOutput]) -> None:
    rows = [row(n, revised=f"The sun rises in the {n}." if n % 3 else INITIAL) for n in range(9)]
    output = run(*rows, score=lambda text: float(text[-2]))
    assert output.rows["reward_revised"].to_pylist() == output.rows["source_row"].to_pylist() == [1, 2, 4, 5, 7, 8]


def test_the_distance_band_excludes_its_lower_edge_and_includes_its_upper(run: Callable[..., StageOutput]) -> None:
    (kept,) = run(row(0)).rows.to_pylist()
    ids = len(kept["revised_input_ids"]) - len(kept["prompt_input_ids"])
    distance = round(kept["edit_distance"] * ids) / ids
    assert run(row(0), max_distance=distance).rows.num_rows == 1
    assert the_reject(run(row(0), max_distance=distance - 1e-6)).reason == "too_different"
    assert run(row(0), min_distance=distance - 1e-6).rows.num_rows == 1
    reject = the_reject(run(row(0), min_distance=distance))
    assert (reject.reason, reject.evidence) == ("too_similar", {"above": distance})


@pytest.mark.parametrize(("margin", "kept"), [(1.875, 1), (2.0, 1), (2.125, 0), (-5.0, 1)])
def test_the_reward_gain_must_reach_the_margin(run: Callable[..., StageOutput], margin: float, kept: int) -> None:
    assert run(row(0), min_reward_gain=margin).rows.num_rows == kept  # 1 − (−1) = 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_margin_lets_a_score_pass_that_is_not_finite(run: Callable[..., StageOutput], bad: float) -> None:
    assert the_reject(run(row(0), score=lambda text: bad, min_reward_gain=-1e9)).reason == "bad_reward"


def test_no_rows(run: Callable[..., StageOutput]) -> None:
    assert run().rows.num_rows == 0


META = """\
Here is the revised response: The sun rises in the east.
Here's the corrected draft: The sun rises in the east.
Sure! Here's a corrected version:
Sure, here’s an improved version of the draft.
Certainly! Below is the revised and improved answer.
Okay, here is your updated answer:
This is a slightly edited version of the response.
Here is the draft with the corrections applied:
I've revised the draft to fix the mistake.
I have corrected the response.
I revised your answer.
Revised response: The sun rises in the east.
**Corrected version:** The sun rises in the east.
The sun rises in the east. (The original draft said west.)
The sun rises in the east, as the reference answer says.
The sun rises in the east. The draft omits this.
The draft incorrectly claims that the sun rises in the west.
The draft response lacks detail, so more was added.""".splitlines()

REFUSALS = """\
I can't help with that.
I’m sorry, but I can’t assist with that request.
I'm sorry, I cannot provide that information.
Sorry, but I won't answer this.
Unfortunately, I am not able to discuss that.
I'm unable to comply.
I apologize, but I cannot fulfill this request.
I'm afraid I can't do that.
As an AI language model, I have no opinions.""".splitlines()

ORDINARY = """\
The draft of the contract must be signed by both sides.
Send the draft to your lawyer first, and ask what the draft leaves open.
Mel Kiper covers the draft for television, and the draft is held in April.
The original version of the song is slower.
The revised edition came out in 1998, the original text in 1950.
The improved version of the engine used less coal.
Here are some tips to improve your sleep: go to bed earlier.
Here is an updated list of countries.
Here is a corrected version of your sentence: She goes home.
Here's how to write an improved version of your essay.
This is the correct answer because seven is prime.
This is correct, and it was revised in 2003.
I have edited videos for years, so ask away.
I've improved my Spanish by reading.
I have revised the draft of the contract and attached it, wrote the lawyer.
Doctors improved the response of patients to the drug.
The reference section of the library is upstairs, with reference books.
An improved response to earthquakes saves lives.
Sure! Here are three ideas for dinner.
I can't recommend it enough.
I can't help but smile at that.
I cannot stress this enough: never mix bleach and ammonia.
I won't lie, the first week is hard.
Unfortunately, the museum is closed on Mondays.
Sorry to hear that! A cold usually passes within a week.
I'm sorry for your loss.
You may say: "I can't help with that."
As an AI researcher, she worked on vision.""".splitlines()


@pytest.mark.parametrize(("text", "reason"), [(t, "meta_talk") for t in META] + [(t, "refusal") for t in REFUSALS])
def test_talk_about_the_task_and_refusals_are_rejected(text: str, reason: str) -> None:
    with pytest.raises(RowReject) as caught:
        check_text(text, INITIAL, "The sun rises in the east.")
    assert caught.value.reason == reason
    assert caught.value.evidence["found"] in text


@pytest.mark.parametrize("text", [META[0].upper(), "Reviſed reſponſe: The sun.", "Corrected versİon: The sun."])
def test_talk_about_the_task_is_found_in_letters_that_only_look_like_it(text: str) -> None:
    with pytest.raises(RowReject, match="meta_talk"):
        check_text(text, INITIAL, "The sun rises in the east.")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_answers_pass(text: str) -> None:
    check_text(text, INITIAL, "The sun rises in the east.")


@pytest.mark.parametrize("text", [META[0], META[-2], REFUSALS[0]])
def test_what_draft_or_reference_say_too_is_no_reason(text: str) -> None:
    check_text(text, text, REVISED)
    check_text(text, INITIAL, text)


@pytest.mark.parametrize(
    ("text", "reference", "share"),
    [
        ("The sun rises in the east.", "the sun RISES in the east", 1.0),
        ("The sun sets.", "In the west sets the sun.", 2 * 2 / 9),
        ("Moon", "The sun rises.", 0.0),
        ("", "", 0.0),
        ("日は東から昇る。", "日は西から昇る。", 12 / 14),
    ],
)
def test_rouge_counts_words_in_their_order(text: str, reference: str, share: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(share)


def test_a_revision_that_comes_no_nearer_to_the_reference_goes_where_that_is_asked(
    run: Callable[..., StageOutput],
) -> None:
    away = row(0, revised="The moon rises in the west.")
    assert run(away).rows.num_rows == 1
    reject = the_reject(run(row(1), away, min_rouge_gain=0.0))
    assert (reject.index, reject.reason) == (1, "rouge_gain_too_small")
    assert reject.evidence == {"rouge_gain": pytest.approx(4 / 6 - 5 / 6), "at_least": 0.0}
    assert reject.columns["edit_distance"] > 0
    assert the_reject(run(row(0), min_rouge_gain=0.2)).evidence["rouge_gain"] == pytest.approx(1 / 6)


def test_long_runs_of_symbols_take_no_quadratic_time() -> None:
    # Minutes where a pattern looks at each place of the run again.
    for run in ("\n" * 300_000, " - " * 100_000, "\n\t" * 150_000):
        check_text(f"An answer.{run}Its end.", "draft", "reference")
        with pytest.raises(RowReject, match="meta_talk"):
            check_text(f"{run}I have revised the draft.", "draft", "reference")
