import pytest

from pipeline import sources
from pipeline.errors import RowReject

PARSE = sources.get("sharegpt").parse
SPEAKERS = {"h": "human", "g": "gpt", "s": "system"}


def conversation(*turns):
    return {"id": "x_0", "conversations": [{"from": SPEAKERS.get(who, who), "value": text} for who, text in turns]}


def reason(*turns):
    with pytest.raises(RowReject) as caught:
        PARSE(conversation(*turns))
    return caught.value.reason


def texts(row):
    return [(message["role"], message["content"]) for message in row.messages]


def test_the_last_reply_is_the_reference_and_earlier_ones_are_context():
    row = PARSE(conversation(("h", "1"), ("g", "2"), ("h", "3"), ("g", "4"), ("h", "5")))
    assert (texts(row), row.reference) == ([("user", "1"), ("assistant", "2"), ("user", "3")], "4")


@pytest.mark.parametrize("who", ["gpt", "chatgpt", "bing", "bard", "GPT", "assistant"])
@pytest.mark.parametrize("asks", ["human", "user", "Human"])
def test_speakers(who, asks):
    row = PARSE(conversation((asks, "q"), (who, "r")))
    assert (texts(row), row.reference) == ([("user", "q")], "r")


def test_a_piece_that_begins_with_a_reply_begins_at_its_first_question():
    row = PARSE(conversation(("s", "Be brief."), ("g", "… and so on."), ("g", "Done."), ("h", "q"), ("g", "r")))
    assert (texts(row), row.reference) == ([("system", "Be brief."), ("user", "q")], "r")
    assert reason(("g", "a"), ("g", "b")) == "no_query"


@pytest.mark.parametrize(
    "text",
    [
        '<div class="x"><p>Yes.</p></div>',
        "<p>Yes.</p>",
        "\n <ol><li>Yes</li></ol>",
        'Yes.<div class="flex flex-grow flex-col gap-3">',
        "```pythonCopy codex = 1```",
        "Copy23 chars / 5 words",
        "2 / 3\n\nYes.",
    ],
)
def test_a_pages_markup_is_refused_wherever_it_is(text):
    assert reason(("h", "q"), ("g", text)) == "html_remnants"
    assert reason(("h", "q"), ("g", text), ("h", "q"), ("g", "r")) == "html_remnants"


@pytest.mark.parametrize(
    "text",
    ["A `<div>` is a block.", "```html\n<div></div>\n```", "1 / 3 of it", "2 < 3", "Copy code from here.", "a<p>b"],
)
def test_text_about_markup_is_kept(text):
    assert PARSE(conversation(("h", "<div>what is this?</div>"), ("g", text))).reference == text


@pytest.mark.parametrize("part", ["<div", " ", '<div class="', "```a", "1", "Copy1", "<", "a"])
def test_long_texts_of_what_markup_begins_with(part):
    """Finishes only because the search is linear."""
    text = "x" + part * 200_000
    assert PARSE(conversation(("h", "q"), ("g", text))).reference == text
