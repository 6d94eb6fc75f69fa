import pytest

from pipeline import sources
from pipeline.errors import ConfigError, RowReject
from pipeline.sources.adapters import hh_rlhf

PARSE = hh_rlhf.ADAPTER.parse


def pair(chosen, rejected=None):
    return {"chosen": chosen, "rejected": chosen if rejected is None else rejected}


def reason(chosen, rejected=None):
    with pytest.raises(RowReject) as caught:
        PARSE(pair(chosen, rejected))
    assert {"expected", "got"} <= set(caught.value.evidence)
    return caught.value.reason


def texts(row):
    return [(message["role"], message["content"]) for message in row.messages]


def test_single_turn():
    row = PARSE(pair("\n\nHuman: 2 + 2?\n\nAssistant: 4.", "\n\nHuman: 2 + 2?\n\nAssistant: 5."))
    assert (texts(row), row.reference, row.rejected) == ([("user", "2 + 2?")], "4.", "5.")


def test_multi_turn_and_paragraphs_stay_whole():
    reply = "First:\n\n1. one\n\n2. two\n\nHumans: are many.\n\nAssistants too"
    row = PARSE(pair(f"\n\nHuman: Hi\n\nAssistant: Yes?\n\nmore\n\nHuman: a\n\nb\n\nAssistant: {reply}"))
    assert texts(row) == [("user", "Hi"), ("assistant", "Yes?\n\nmore"), ("user", "a\n\nb")]
    assert row.reference == reply


@pytest.mark.parametrize("start", ["", "\n", "\n\n", "\n\n\n", "  ", "\r\n\r\n"])
def test_start_of_the_text(start):
    assert texts(PARSE(pair(f"{start}Human: Hi\n\nAssistant: Yes"))) == [("user", "Hi")]


def test_crlf_splits_turns_and_stays_inside_them():
    row = PARSE(pair("\r\n\r\nHuman: Hi\r\nthere\r\n\r\nAssistant: a\r\n\r\nb\r\n"))
    assert (texts(row), row.reference) == ([("user", "Hi\r\nthere")], "a\r\n\r\nb")


def test_other_context_drops_the_rejected_reply():
    row = PARSE(pair("\n\nHuman: A\n\nAssistant: 1", "\n\nHuman: B\n\nAssistant: 2"))
    assert (texts(row), row.reference, row.rejected) == ([("user", "A")], "1", None)


@pytest.mark.parametrize(
    "rejected",
    [
        "",
        "no turns",
        "\n\nHuman: A",
        "\n\nHuman: A\n\nAssistant: ",
        "\n\nHuman: A\n\nAssistant: Human: B",
        "x\n\nHuman: A",
    ],
)
def test_unusable_rejected_reply_costs_only_itself(rejected):
    assert PARSE(pair("\n\nHuman: A\n\nAssistant: 1", rejected)).rejected is None


def test_two_turns_in_a_row_are_one():
    row = PARSE(pair("\n\nHuman: A\n\nHuman: B\n\nAssistant: 1\n\nAssistant:  2\n\nHuman: C\n\nAssistant: 3"))
    assert texts(row) == [("user", "A\n\nB"), ("assistant", "1\n\n2"), ("user", "C")]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("", "wrong_shape"),
        ("plain text", "wrong_shape"),
        ("Question: a\n\nAnswer: b", "wrong_shape"),
        ("Talk.\n\nHuman: A\n\nAssistant: 1", "text_before_first_turn"),
        ("\n\nHuman: A", "no_final_reply"),
        ("\n\nHuman: A\n\nAssistant: 1\n\nHuman: B", "no_final_reply"),
        ("\n\nHuman: A\n\nAssistant:", "empty_reference"),
        ("\n\nHuman: A\n\nAssistant: \n\n ", "empty_reference"),
        ("\n\nAssistant: 1", "no_query"),
        ("\n\nAssistant: 1\n\nHuman: A\n\nAssistant: 2", "starts_with_assistant"),
        ("\n\nHuman: A\n\nAssistant: 1\n\nAssistant: 2", "context_not_user"),
        ("\n\nHuman: \n\nAssistant: 1", "empty_turn"),
    ],
)
def test_reject_reasons(chosen, expected):
    assert reason(chosen) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Human: You mean a pen?",
        "No.  Human: Why?",
        "No. Human: Why?",
        "No.Human: Why?",
        "No\u2028Human: Why?",
        "No\nHuman: Why?",
        "No\n \nAssistant: Why?",
        "No \t Assistant: Why?",
        "No." + " " * 100_000 + "Human: Why?",
    ],
)
def test_no_marker_is_left_in_a_message_or_reference(text):
    assert reason(f"\n\nHuman: A\n\nAssistant: {text}") == "marker_in_message"
    assert reason(f"\n\nHuman: A\n\nAssistant: {text}\n\nHuman: B\n\nAssistant: 1") == "marker_in_message"


@pytest.mark.parametrize(
    "text",
    [
        "I am an Executive Assistant: busy",
        "Actually, human: no",
        "a SuperHuman: x",
        'A play: "Human: Hi"',
        "Human rights",
    ],
)
def test_prose_is_no_marker(text):
    assert PARSE(pair(f"\n\nHuman: A\n\nAssistant: {text}")).reference == text


@pytest.mark.parametrize(
    "raw", [{}, {"chosen": "\n\nHuman: A\n\nAssistant: 1"}, pair(3, "x"), pair(None, "x"), pair(["x"], "x")]
)
def test_wrong_shape_says_what_was_expected_and_what_came(raw):
    with pytest.raises(RowReject) as caught:
        PARSE(raw)
    assert caught.value.reason == "wrong_shape"
    assert "chosen" in caught.value.evidence["expected"]
    assert len(caught.value.evidence["got"]) <= 160


def test_lone_surrogates_are_replaced_and_counted():
    row = PARSE(
        pair("\n\nHuman: a\ud800b\n\nAssistant: \udfff\udfff", "\n\nHuman: a\ud800b\n\nAssistant: \ud83d\ude00")
    )
    assert (row.messages[0]["content"], row.reference, row.replaced_surrogates) == ("a\ufffdb", "\ufffd\ufffd", 5)


def test_other_odd_characters_pass_unchanged():
    odd = "nul \0 bom \ufeff bidi \u202e\u2066 nfc \u00e9 nfd e\u0301 ls \u2028 😀"
    row = PARSE(pair(f"\n\nHuman: {odd}.\n\nAssistant: {odd}."))
    assert row.messages[0]["content"] == row.reference == f"{odd}."
    assert row.replaced_surrogates == 0


def test_registry_suggests_the_nearest():
    assert sources.get("hh-rlhf").hub_id == "Anthropic/hh-rlhf"
    with pytest.raises(
        ConfigError,
        match=r"unknown source 'hh_rlfh'.*known are aligner, alpaca, clair, demo, helpsteer3-edit.*did you mean hh-rlhf",
    ):
        sources.get("hh_rlfh")
