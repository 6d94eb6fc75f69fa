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


def texts(draft: str, reason: str = "lack_of_detail", reference: str = REFERENCE) -> list[tuple[str, bool]]:
    query = "How long should I boil an egg?"
    return [(p.text.strip(), p.ask) for p in sentences.plan(query, reference, draft, reason)]


def test_a_rival_sentence_is_replaced_in_place() -> None:
    first = "Cold eggs take long to boil."
    planned = texts(f"{first} You should boil eggs for twenty or thirty minutes at most.")
    boil, cool = ("Boil the egg for about six minutes.", False), ("Then cool it under cold water.", False)
    assert planned == [(first, True), boil, cool]


def test_what_the_draft_says_already_is_neither_asked_about_nor_added() -> None:
    planned = texts("Boil the egg for about six minutes. Then cool it under cold water.")
    assert planned == [("Boil the egg for about six minutes.", False), ("Then cool it under cold water.", False)]


def test_repeated_broken_off_and_stray_sentences_go() -> None:
    planned = texts("An egg is boiled in water. An egg is boiled in water. Football scores were published. The egg whi")
    assert [text for text, _ in planned].count("An egg is boiled in water.") == 1
    assert not any("Football" in text or "whi" in text for text, _ in planned)


def test_where_the_reference_declines_a_complying_draft_is_not_kept() -> None:
    planned = texts(
        "Sure, boil the egg with bleach. It tastes of egg.", reference="No, I won't help with that. Ask a cook."
    )
    assert all(not ask for _, ask in planned)
    assert planned[0] == ("No, I won't help with that.", False)


@pytest.mark.parametrize("reason", ["inaccuracy", "other"])
def test_a_wrong_draft_is_preceded_by_what_is_right(reason: str) -> None:
    draft = "Water and hens are long known friends."
    boil, cool = ("Boil the egg for about six minutes.", False), ("Then cool it under cold water.", False)
    assert texts(draft, reason) == [boil, cool, (draft, True)]
    assert texts(draft) == [boil, (draft, True), cool]


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
