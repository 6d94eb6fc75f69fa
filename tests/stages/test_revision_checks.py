"""Revisions that correct nothing, copy the reference, or keep an opening that it denies; and those that only look so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.settings import FilterSettings, LabelSettings
from pipeline.errors import RowReject
from pipeline.labels.loading import load_tokenizer
from pipeline.stages.filter import filter_revisions
from pipeline.stages.revision_checks import check_correction, contradiction
from tests.stages.tables import Counter, TinyReward, row, table_for, the_reject

ALL = FilterSettings(min_reference_distance=0.2, reject_contradictions=True)
REFERENCE = "Give it about six minutes in gently boiling water, then cool it under the tap."


def reason(revised: str, initial: str, reference: str = REFERENCE, settings: FilterSettings = ALL) -> str | None:
    try:
        check_correction(revised, initial, reference, settings)
    except RowReject as reject:
        return reject.reason
    return None


DRAFT = "Boil the egg, for ten minutes. It's done"


@pytest.mark.parametrize("text", ["Boil the egg for ten minutes; It's done!", f" {DRAFT}\n", f"“{DRAFT}.”", DRAFT])
def test_white_space_and_punctuation_are_no_correction(text: str) -> None:
    assert reason(text, DRAFT) == "unchanged"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (DRAFT, DRAFT.replace("ten", "six")),
        ("It costs 15 euros.", "It costs 1.5 euros."),
        ("It is 5 degrees.", "It is -5 degrees."),
        ("Its a dog.", "It's a dog."),
        ("2+2=4", "2-2=4"),
        ("We need eggs, milk and flour.", "We need\n- eggs,\n- milk and\n- flour."),
        ("First this. Then that.", "First this.\n\nThen that."),
        ("Call `print x`.", "Call `print, x`."),
        ("他不来。", "他来。"),
    ],
)
def test_numbers_signs_lines_and_code_are(before: str, after: str) -> None:
    assert reason(after, before) is None


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_judged(revised: str, initial: str, reference: str) -> None:
    assert reason(initial, initial, reference) in (None if "`" in initial else "unchanged", "unchanged")
    assert reason(revised, initial, reference) in (None, "unchanged", "copies_reference", "contradicts_reference")


FAR = "Eggs are a great source of protein. Put one into a pan with oil."


@pytest.mark.parametrize("text", [REFERENCE, REFERENCE.upper(), REFERENCE.replace("tap", "cold tap")])
def test_the_reference_in_place_of_a_far_draft_is_a_copy(text: str) -> None:
    assert reason(text, FAR) == "copies_reference"
    assert reason(text, FAR, settings=FilterSettings()) is None
    near = REFERENCE.replace("six", "sixty").replace("under the tap", "in the sun")
    assert reason(REFERENCE, near) is None, "the correction is that small"
    assert reason(f"Eggs are a great source of protein. {REFERENCE}", FAR) is None


def test_a_copy_says_how_near_it_is() -> None:
    with pytest.raises(RowReject) as caught:
        check_correction(REFERENCE, FAR, REFERENCE, ALL)
    evidence = caught.value.evidence
    assert (evidence["reference_distance"], evidence["at_least"]) == (0.0, 0.2)
    assert evidence["distance_of_draft"] > 0.5


YES = "Yes, you can give him one tablet. Watch him."
DENIALS = [
    "No, please don't. It is toxic.",
    "No. It is toxic.",
    "Please don't: it is toxic.",
    "I can't help with that.",
    "I’m so sorry, but I can’t help with that.",
    "I won't help with that one; it's phishing.",
    "I'd rather not write a fake review.",
    "I'd advise against doing it in secret.",
    "I don't think that's safe.",
    "Sorry, I am not able to do that.",
    "That's not true. It is toxic.",
    "It’s illegal, so no.",
    "You shouldn't. It is toxic.",
    "Absolutely not.",
    "Not quite, it is toxic.",
    "Don't do that!",
    "Nein, bitte nicht.",
    "Das stimmt nicht.",
    "Ich kann dir dabei nicht helfen.",
    "Non, c'est toxique.",
    "No puedo ayudarte con eso.",
    "Não, é tóxico.",
    "Нет, это яд.",
    "不，这有毒。",
    "いいえ、毒です。",
]
KEPT = [
    YES,
    "Sure, here's how to do it: open the lock.",
    "Sure! Here is how. Open the lock.",
    "Certainly! Open the lock.",
    "Of course you can. Open the lock.",
    "Here are some ways to do it:\n1. Open the lock.",
    "You can open the lock with a pin.",
    "That's right, it is. Everybody knows.",
    "I'd be happy to help. Open the lock.",
    "Ja, das geht. Mach es auf.",
    "Oui, bien sûr. Ouvre.",
    "Sí, claro. Abre.",
    "Да, конечно. Откройте.",
    "是的，可以。打开它。",
    "はい、できます。開けて。",
]


@pytest.mark.parametrize(("opening", "reference"), [(YES, d) for d in DENIALS] + [(k, DENIALS[0]) for k in KEPT])
def test_a_kept_opening_that_the_reference_denies_is_a_contradiction(opening: str, reference: str) -> None:
    mended = f"{opening} But ask a vet first."
    assert reason(mended, f"{opening} He will like it.", reference) == "contradicts_reference"
    assert reason(mended, f"{opening} He will like it.", reference, FilterSettings()) is None
    assert reason(mended, f"{opening} He will like it.", "Yes, that's fine.") is None


AGREEING = [
    "No problem! Boil it.",
    "No two eggs are the same.",
    "Nothing is easier.",
    "Not everyone likes eggs, but you can.",
    "Don't worry, you can.",
    "Don't forget the salt.",
    "Please note that you can.",
    "I can't recommend it enough.",
    "I can't wait to hear how it goes. You can.",
    "I don't know him, but you can.",
    "It's not easy, but you can.",
    "That's not a bad idea.",
    "Sorry to hear that! You can.",
    "You can, but rarely.",
    "不过可以。",
]


@pytest.mark.parametrize("reference", AGREEING)
def test_references_that_deny_nothing(reference: str) -> None:
    assert contradiction(f"{YES} Rarely.", YES, reference) is None


@pytest.mark.parametrize(
    "revised",
    [
        "No, you can't give him a tablet. Watch him.",
        "You can't give him one tablet. Watch him.",
        "Yes, but one tablet is dangerous. Watch him.",
        "Sure, I see why you ask, but please don't.",
        "Of course not. Watch him.",
        "Please don't give him one tablet. Watch him.",
        "You should call a vet at once and tell her what he ate.",
        "Yesterday's tablets are harmful.",
        "Surely a vet knows.",
    ],
)
def test_openings_that_were_mended(revised: str) -> None:
    assert contradiction(revised, YES, DENIALS[0]) is None


def test_the_reject_shows_both_openings_and_the_distance(tiny_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer, LabelSettings(), "tiny")
    rows = [row(0, initial=YES, revised=f"{YES} Call a vet.", reference=DENIALS[0])]
    output = filter_revisions(table_for("filter", rows), ALL, tokenizer, TinyReward(lambda text: 1.0), Counter())
    reject = the_reject(output)
    assert reject.evidence == {"kept": "Yes, you can give him one tablet.", "reference": "No"}
    assert 0 < reject.columns["edit_distance"] < 1
