"""Planning and joining of sentence-wise revisions; no model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages import sentences

REFERENCE = "Boil the egg for about six minutes. Then cool it under cold water."


@given(st.text(alphabet='aB1 .!?\n”)"日é', max_size=80))
def test_splitting_loses_nothing(text: str) -> None:
    assert "".join(sentences.split(text)) == text


def test_list_numbers_do_not_end_sentences() -> None:
    assert sentences.split("1. Fry it.\n2. Eat it.") == ["1. Fry it.\n", "2. Eat it."]


QUERY = "How long should I boil an egg?"
BOIL, COOL = ("Boil the egg for about six minutes.", False), ("Then cool it under cold water.", False)


def texts(draft: str, reference: str = REFERENCE) -> list[tuple[str, bool]]:
    return [(p.text.strip(), p.repair) for p in sentences.plan(QUERY, reference, draft).pieces]


def reason(draft: str, reference: str = REFERENCE) -> str:
    return sentences.plan(QUERY, reference, draft).reason


def test_a_rival_sentence_is_replaced_in_place_and_the_rest_follows_it() -> None:
    first, last = "Cold eggs take long to boil.", "Salted water boils an egg as well."
    draft = f"{first} You should boil eggs for twenty or thirty minutes at most. {last}"
    assert texts(draft) == [(first, True), BOIL, COOL, (last, True)]
    assert reason(draft) == "inaccuracy"


def test_what_the_draft_says_already_is_neither_asked_about_nor_added() -> None:
    draft = "Boil the egg for about six minutes. Then cool it under cold water."
    assert texts(draft) == [BOIL, COOL]
    assert reason(draft) == "structure"


def test_what_is_missing_follows_what_the_draft_has_of_it() -> None:
    aside = "Boil another when guests are expected."
    assert texts(f"Boil the egg for about six minutes. {aside}") == [BOIL, COOL, (aside, True)]
    assert reason(f"Boil the egg for about six minutes. {aside}") == "lack_of_detail"


def test_what_answers_the_question_comes_first() -> None:
    draft = "Water and hens are long known friends."
    assert texts(draft) == [BOIL, COOL, (draft, True)]


def test_repeated_broken_off_and_stray_sentences_go() -> None:
    planned = texts("An egg is boiled in water. An egg is boiled in water. Football scores were published. The egg whi")
    assert [text for text, _ in planned].count("An egg is boiled in water.") == 1
    assert not any("Football" in text or "whi" in text for text, _ in planned)


def test_where_the_reference_declines_a_complying_draft_is_not_kept() -> None:
    sure, no = "Sure, boil the egg with bleach. It tastes of egg.", "No, I won't help with that. Ask a cook."
    planned = texts(sure, no)
    assert all(not ask for _, ask in planned)
    assert planned[0] == ("No, I won't help with that.", False)
    assert reason(sure, no) == "other"


def test_candidates_lose_what_agrees_least_first_but_never_all_of_the_draft() -> None:
    pieces = sentences.plan(QUERY, REFERENCE, "Hens know water. Boiled eggs are cold.").pieces
    texts = [piece.text for piece in pieces]
    assert texts[2:] == ["Hens know water. ", "Boiled eggs are cold."]
    mended = [*texts[:2], "Hens like water. ", texts[3]]
    assert sentences.candidates(pieces, mended, "Eggs are cold.") == [
        f"{REFERENCE} Hens like water. Boiled eggs are cold.",
        f"{REFERENCE} Boiled eggs are cold.",
        f"{REFERENCE} Hens know water. Boiled eggs are cold.",
    ]


@pytest.mark.parametrize(
    ("answer", "cut", "expected"),
    [
        ('"The Moon is round."', False, "The Moon is round. "),
        ("The Moon is flat.", False, "The Moon is flat. "),
        ("The Moon is", True, "The Moon is flat. "),
        ("", False, "The Moon is flat. "),
        ("<sentence-12345678>The Moon", False, "The Moon is flat. "),
        ("long " * 40, False, "The Moon is flat. "),
    ],
)
def test_only_one_clean_sentence_is_a_repair(answer: str, cut: bool, expected: str) -> None:
    assert sentences.read_repair(answer, "The Moon is flat. ", cut=cut) == expected


def test_joining_puts_a_space_where_there_was_none() -> None:
    assert sentences.join(["One.", "Two. ", "", "Three.\n"]) == "One. Two. Three."
