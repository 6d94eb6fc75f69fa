"""The sources that give an instruction and its answers: alpaca, openorca, synthetic-gptj, ultrafeedback, spa."""

import pytest

from pipeline import sources
from pipeline.errors import RowReject


def parse(name, raw):
    row = sources.get(name).parse(raw)
    return [(message["role"], message["content"]) for message in row.messages], row.reference, row.rejected


def reason(name, raw):
    with pytest.raises(RowReject) as caught:
        sources.get(name).parse(raw)
    return caught.value.reason


@pytest.mark.parametrize("nothing", ["", " ", None, "<noinput>", "No input", "<no input>", "no_input", "NoInput."])
def test_alpaca_without_input(nothing):
    assert parse("alpaca", {"instruction": "Do.", "input": nothing, "output": "r"}) == ([("user", "Do.")], "r", None)


def test_alpaca_appends_the_input_after_a_blank_line():
    assert parse("alpaca", {"instruction": "Do:", "input": " this\n", "output": " r "}) == (
        [("user", "Do:\n\n this\n")],
        " r ",
        None,
    )
    kept = {"instruction": "Do:", "input": "No input was given to the court.", "output": "r"}
    assert parse("alpaca", kept)[0] == [("user", "Do:\n\nNo input was given to the court.")]


@pytest.mark.parametrize("output", ["", "<nooutput>", "No output", "<no output>."])
def test_alpaca_without_output(output):
    assert reason("alpaca", {"instruction": "Do.", "input": "", "output": output}) == "empty_reference"


def test_openorca_system_prompt():
    raw = {"id": "cot.1", "system_prompt": "s", "question": "q", "response": "r"}
    assert parse("openorca", raw) == ([("system", "s"), ("user", "q")], "r", None)
    for empty in ("", " ", None):
        assert parse("openorca", raw | {"system_prompt": empty}) == ([("user", "q")], "r", None)
    assert reason("openorca", raw | {"system_prompt": 1}) == "wrong_shape"


def test_synthetic_gptj_keeps_texts_and_drops_a_rejected_reply_that_is_no_worse():
    raw = {"prompt": " q\n", "chosen": "\nr", "rejected": "w"}
    assert parse("synthetic-gptj", raw) == ([("user", " q\n")], "\nr", "w")
    for none in ("", " ", "\nr", None, 5):
        assert parse("synthetic-gptj", raw | {"rejected": none})[2] is None


def chat(*texts):
    return [{"content": text, "role": ("user", "assistant")[i % 2]} for i, text in enumerate(texts)]


def test_ultrafeedback_takes_the_last_replies_of_both():
    raw = {"prompt": "1", "chosen": chat("1", "2", "3", "4"), "rejected": chat("1", "2", "3", "5")}
    context = [("user", "1"), ("assistant", "2"), ("user", "3")]
    assert parse("ultrafeedback", raw) == (context, "4", "5")
    for other in (chat("1", "x", "3", "5"), chat("q", "5"), chat("1"), [], None, "5" * 3, [None]):
        assert parse("ultrafeedback", raw | {"rejected": other})[2] in (None, "555")


@pytest.mark.parametrize(
    ("chosen", "rejected", "kept"), [(8.5, 4, True), (6, 6, False), (4, 6.0, False), (None, 6, True)]
)
def test_ultrafeedback_ties_have_no_rejected_reply(chosen, rejected, kept):
    raw = {"chosen": chat("q", "r"), "rejected": chat("q", "w"), "score_chosen": chosen, "score_rejected": rejected}
    assert parse("ultrafeedback", raw)[2] == ("w" if kept else None)


SPA = {"instruction": "q", "output": "y", "original_output": "a", "revised_output": "b"}


def test_spa_brings_both_answers():
    row = sources.get("spa").parse(SPA | {"input": "i"})
    assert (row.messages[0]["content"], row.reference, row.initial, row.revised) == ("q\n\ni", "y", "a", "b")
    assert sources.get("spa").gives_pairs


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"original_output": ""}, "empty_initial"),
        ({"revised_output": "\n"}, "empty_revision"),
        ({"revised_output": None}, "wrong_shape"),
        ({"original_output": 5}, "wrong_shape"),
        ({"output": ""}, "empty_reference"),
        ({"instruction": ""}, "empty_turn"),
    ],
)
def test_spa_rejects(change, expected):
    assert reason("spa", SPA | change) == expected


def test_lone_surrogates_of_brought_answers_are_replaced_and_counted():
    row = sources.get("spa").parse(SPA | {"original_output": "\ud800", "revised_output": "\udfff\udfff"})
    assert (row.initial, row.revised, row.replaced_surrogates) == ("\ufffd", "\ufffd\ufffd", 3)
