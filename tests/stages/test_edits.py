"""Edit scripts: what is read from an answer, which edits are refused, and that the rest do exactly what they say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.stages.edits import FORMAT, apply_edits, read_edits

DRAFT = "The sun rises in the west. The café opens at 9, they say."
ONE = [{"find": "west", "replace": "east"}]
# Few letters, so that finds meet, repeat and stand inside words; a combining accent and a script without spaces.
alphabet = st.sampled_from(["a", "b", " ", ".", "é", "\u0301", "猫", "\n"])
texts = st.text(alphabet, max_size=24)


def edit(find: Any, replace: Any) -> dict[str, Any]:
    return {"find": find, "replace": replace}


def dropped(draft: str, *edits: Any) -> list[str]:
    return [entry.reason for entry in apply_edits(draft, edits).dropped]


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps({"edits": ONE}),
        json.dumps(ONE),
        json.dumps({"edits": ONE}, indent=2),
        f"```json\n{json.dumps({'edits': ONE})}\n```",
        f"Here [as asked] are the {{edits}}:\n{json.dumps({'edits': ONE})}\nI hope it helps!",
        '{"edits": [{"find": "west", "replace": "east",},],}',
        '[\n  {"find": "west", "replace": "east"},\n]',
        '{"edits": [oops]} Again: {"edits": [{"find": "west", "replace": "east"}]}',
    ],
)
def test_a_script_is_read(answer: str) -> None:
    assert read_edits(answer) == ONE


@pytest.mark.parametrize(
    "answer",
    [
        *["", "No change is needed.", "null", "5", '{"edits": null}', '{"edits": "west"}', '{"revised": "x"}'],
        *['{"edits": [{"find": "we', "__import__('os').getcwd()", "[(1, 2)]", '{"edits": [9' + "9" * 5000 + "]}"],
        # Depth, and unended strings: neither may take more than a moment.
        *["[{" * 50_000, '{"edits": ' + "[" * 100_000, '"\\' * 100_000, '{"edits"' * 20_000, "[ " * 50_000],
    ],
)
def test_what_is_no_script_is_none(answer: str) -> None:
    assert read_edits(answer) is None


def test_commas_and_line_breaks_inside_strings_stay() -> None:
    answer = '{"edits": [{"find": "a,]", "replace": "\\"b,}\\"\nc"},]}'
    assert read_edits(answer) == [edit("a,]", '"b,}"\nc')]


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        ([edit("west", "east")], "The sun rises in the east. The café opens at 9, they say."),
        ([edit(", they say", "")], "The sun rises in the west. The café opens at 9."),
        ([edit("opens", "opens daily")], "The sun rises in the west. The café opens daily at 9, they say."),
        # Offsets are the original's: the second is not looked for in what the first made; touching is no overlap.
        ([edit("west", "9"), edit("9", "8")], "The sun rises in the 9. The café opens at 8, they say."),
        ([edit("9", "8"), edit("at ", "before ")], "The sun rises in the west. The café opens before 8, they say."),
        ([edit(DRAFT, "Gone.")], "Gone."),
    ],
)
def test_edits_are_applied_to_the_original(edits: list[dict[str, str]], text: str) -> None:
    edited = apply_edits(DRAFT, edits)
    assert edited == (text, edits, [])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (edit("moon", "sun"), "absent"),
        (edit("", "sun"), "absent"),
        (edit("WEST", "east"), "absent"),
        (edit("The", "A"), "ambiguous"),
        (edit("the", "a"), "ambiguous"),  # "the west", and within "they"
        (edit("un ris", "oon sink"), "inside_word"),
        (edit("caf", "pub"), "inside_word"),
        (edit(" sun ", ""), "joins_words"),
        (edit(" opens", "closes"), "joins_words"),
        (edit("west", "west"), "no_change"),
        *[(bad, "malformed") for bad in (None, 5, "west", [], {}, {"find": "west"}, edit(1, 2), edit("west", None))],
        (edit("west", "\ud800"), "malformed"),
    ],
)
def test_an_edit_that_does_not_prove_itself_is_dropped_and_named(bad: Any, reason: str) -> None:
    edited = apply_edits(DRAFT, [bad, edit("9", "8")])
    assert [(entry.reason, entry.edit) for entry in edited.dropped] == [(reason, bad)]
    assert (edited.applied, edited.text) == ([edit("9", "8")], DRAFT.replace("9", "8"))


def test_repeats_and_overlaps_lose_to_the_first() -> None:
    assert dropped(DRAFT, edit("west", "east"), edit("west", "east")) == ["repeated"]
    assert dropped(DRAFT, edit("west", "east"), edit("west", "north")) == ["overlapping"]
    assert dropped(DRAFT, edit("in the west", "in the east"), edit("the west.", "it.")) == ["overlapping"]
    # One that was dropped holds no place.
    assert dropped(DRAFT, edit("the wes", "x"), edit("west", "east")) == ["inside_word"]


def test_overlapping_occurrences_are_ambiguous() -> None:
    assert dropped(". . .", edit(". .", "!")) == ["ambiguous"]


def test_a_letter_keeps_its_accent_and_scripts_without_spaces_have_boundaries_everywhere() -> None:
    assert dropped("cafe\u0301", edit("cafe", "pub")) == ["inside_word"]
    assert apply_edits("我喜欢猫。", [edit("猫", "狗")]).text == "我喜欢狗。"


def test_a_replacement_with_a_delimiter_is_dropped() -> None:
    edited = apply_edits(DRAFT, [edit("west", "<draft-0a1b>")], lambda text: "0a1b" in text)
    assert (edited.text, [entry.reason for entry in edited.dropped]) == (DRAFT, ["leaked_delimiter"])


@given(texts, st.lists(st.builds(edit, st.text(alphabet, max_size=4), st.text(alphabet, max_size=4)), max_size=6))
@example("a b c", [edit("a ", ""), edit("b ", "")])
def test_every_edit_is_applied_or_dropped_and_the_text_is_what_the_applied_ones_make(
    draft: str, edits: list[dict[str, str]]
) -> None:
    edited = apply_edits(draft, edits)
    assert len(edited.applied) + len(edited.dropped) == len(edits)
    pieces, rest = [], draft
    for applied in sorted(edited.applied, key=lambda e: draft.index(e["find"])):
        assert draft.count(applied["find"]) == 1 and applied["find"] != applied["replace"]
        # Not found in what is left: it would overlap the one before.
        before, rest = rest.split(applied["find"])
        pieces += [before, applied["replace"]]
    assert edited.text == "".join(pieces) + rest


@given(texts, st.data())
def test_the_order_of_edits_that_are_all_applied_does_not_matter(draft: str, data: st.DataObject) -> None:
    words = [word for word in re.findall(r"[ab]+", draft) if draft.count(word) == 1]
    edits = [edit(word, f"x{number}") for number, word in enumerate(words)]
    edits = [e for e in edits if not dropped(draft, e)]
    shuffled = data.draw(st.permutations(edits))
    assert apply_edits(draft, edits).text == apply_edits(draft, shuffled).text
    assert apply_edits(draft, shuffled).applied == shuffled


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner),
    )
)
def test_any_json_is_read_or_refused_without_an_error(value: Any) -> None:
    script = read_edits(json.dumps(value))
    for edited in (apply_edits(DRAFT, script or []), apply_edits(DRAFT, [value])):
        assert edited.text == DRAFT or edited.applied


def test_the_schema_allows_nothing_else() -> None:
    shape = FORMAT["json_schema"]["schema"]
    items = shape["properties"]["edits"]["items"]
    assert FORMAT["json_schema"]["strict"] is True
    for part in (shape, items):
        assert part["additionalProperties"] is False
        assert set(part["required"]) == set(part["properties"])
