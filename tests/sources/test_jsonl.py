import pickle

import pytest

from pipeline import sources
from pipeline.errors import ConfigError, RowReject
from pipeline.sources import fields
from pipeline.sources.adapters import jsonl

U, A, S = "user", "assistant", "system"


def chat(*turns, role="role", content="content"):
    return [{role: who, content: text} for who, text in turns]


GUESSES = [
    ({"messages": chat((S, "s"), (U, "q"), (A, "r"))}, [(S, "s"), (U, "q")], "r", None),
    ({"messages": chat((U, "q"), (A, "r"), (U, "more"))}, [(U, "q")], "r", None),
    (
        {"id": 1, "conversations": chat(("human", "q"), ("gpt", "r"), role="from", content="value")},
        [(U, "q")],
        "r",
        None,
    ),
    ({"prompt": "q", "chosen": "r", "rejected": "w"}, [(U, "q")], "r", "w"),
    ({"prompt": "q", "chosen": chat((U, "q"), (A, "r")), "rejected": chat((U, "q"), (A, "w"))}, [(U, "q")], "r", "w"),
    ({"chosen": chat((U, "q"), (A, "r")), "rejected": chat((U, "q"), (A, "w"))}, [(U, "q")], "r", "w"),
    ({"prompt": chat((S, "s"), (U, "q")), "completion": chat((A, "r"))}, [(S, "s"), (U, "q")], "r", None),
    *(
        ({"prompt": "q", name: "r"}, [(U, "q")], "r", None)
        for name in ("response", "completion", "reference", "answer")
    ),
    ({"instruction": "do", "input": "this", "output": "r"}, [(U, "do\n\nthis")], "r", None),
    ({"instruction": "do", "input": "", "output": "r"}, [(U, "do")], "r", None),
    ({"instruction": "do", "context": "this", "response": "r"}, [(U, "do\n\nthis")], "r", None),
    ({"question": "q", "context": "", "answer": "r"}, [(U, "q")], "r", None),
    ({"instruction": "do", "output": "r", "original_output": "x", "revised_output": "y"}, [(U, "do")], "r", None),
    ({"id": "1", "system_prompt": "s", "question": "q", "response": "r"}, [(S, "s"), (U, "q")], "r", None),
    ({"system_prompt": "", "question": "q", "response": "r"}, [(U, "q")], "r", None),
    ({"question": "q", "answer": "r"}, [(U, "q")], "r", None),
    (
        {"chosen": "\n\nHuman: q\n\nAssistant: r", "rejected": "\n\nHuman: q\n\nAssistant: w"},
        [(U, "q")],
        "r",
        "w",
    ),
]


@pytest.mark.parametrize(("raw", "messages", "reference", "rejected"), GUESSES)
def test_guessed_shapes(raw, messages, reference, rejected):
    adapter, said = sources.bind(sources.get("jsonl"), {}, [raw])
    row = adapter.parse(raw)
    assert [(m["role"], m["content"]) for m in row.messages] == messages
    assert (row.reference, row.rejected) == (reference, rejected)
    assert said and said.startswith("fields guessed: ")
    assert jsonl.ADAPTER.parse(raw) == pickle.loads(pickle.dumps(adapter)).parse(raw) == row


def test_most_of_the_good_rows_fix_the_mapping():
    rows = [{"x": 1}, {"prompt": " ", "answer": "r"}, {"question": "q", "answer": "r"}, {"prompt": "q", "answer": "r"}]
    adapter, said = sources.bind(sources.get("jsonl"), {}, rows)
    others = "; of others: prompt = 'prompt', reference = 'answer'"
    assert said == f"fields guessed: prompt = 'question', reference = 'answer' (of 1 of the first 2 good rows){others}"
    assert adapter.parse(rows[3]) == adapter.parse(rows[2])
    with pytest.raises(RowReject) as caught:
        adapter.parse({"instruction": "q", "answer": "r"})
    assert caught.value.reason == "wrong_shape"
    assert caught.value.evidence == {"expected": "text in 'question'", "got": "instruction: string, answer: string"}


def test_a_row_keeps_a_reference_that_most_pairs_lack():
    pair = {"prompt": "q", "initial": "a", "revised": "b"}
    adapter, _ = sources.bind(sources.get("jsonl"), {}, [pair] * 3)
    assert adapter.parse(pair).reference == "b"
    assert adapter.parse({**pair, "reference": "R"}) == jsonl.ADAPTER.parse({**pair, "reference": "R"})
    assert adapter.parse({**pair, "reference": "R"}).reference == "R"
    assert adapter.parse({**pair, "reference": None}).reference == "b"


def test_pairs_among_prompts_are_told():
    pair, prompt = {"prompt": "q", "initial": "a", "revised": "b", "reference": "r"}, {"prompt": "q", "reference": "r"}
    _, said = sources.bind(sources.get("jsonl"), {}, [prompt, prompt, pair])
    assert said and said.endswith(
        "; 1 with a pair of their own, which isn't used: keep such rows in a file of their own"
    )


def test_no_good_row_leaves_the_guess_to_each_row():
    assert sources.bind(sources.get("jsonl"), {}, [{"x": 1}]) == (jsonl.ADAPTER, None)


def test_given_fields():
    names = {"prompt": "ask", "reference": "a.b", "system": "sys", "rejected": "bad", "messages": None}
    adapter, said = sources.bind(sources.get("jsonl"), names, iter([]))
    row = adapter.parse({"ask": " q ", "a.b": " r ", "bad": "w", "prompt": "other"})
    assert (row.messages, row.reference, row.rejected) == ([{"role": U, "content": " q "}], " r ", "w")
    assert said == "fields given: prompt = 'ask', system = 'sys', reference = 'a.b', rejected = 'bad'"


def test_given_messages_with_a_reference_are_the_whole_query():
    adapter, _ = sources.bind(sources.get("jsonl"), {"messages": "m", "reference": "r"}, [])
    row = adapter.parse({"m": chat((U, "1"), (A, "2"), (U, "3")), "r": "4"})
    assert (len(row.messages), row.reference) == (3, "4")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"promt": "q"}, "did you mean prompt"),
        ({"prompt": "q"}, "needs source.fields.reference"),
        ({"reference": "r"}, "exactly one of"),
        ({"prompt": "q", "messages": "m"}, "exactly one of"),
        ({"transcript": "chosen"}, "needs source.fields.rejected"),
    ],
)
def test_wrong_mappings(names, said):
    with pytest.raises(ConfigError, match=said):
        fields.from_settings(names)


def test_mapping_for_an_adapter_that_knows_its_fields():
    hh = sources.get("hh-rlhf")
    assert sources.bind(hh, {}, []) == (hh, None)
    with pytest.raises(ConfigError, match="knows its own fields"):
        sources.bind(hh, {"prompt": "q", "reference": "r"}, [])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({}, "wrong_shape"),
        ({"text": "x"}, "wrong_shape"),
        ({"messages": []}, "wrong_shape"),
        ({"messages": ["x"]}, "no_final_reply"),
        ({"messages": [3]}, "wrong_shape"),
        ({"messages": [{"role": U, "content": None}]}, "wrong_shape"),
        ({"messages": [{"role": U, "content": [{"type": "image"}]}]}, "unsupported_content"),
        ({"messages": chat((U, "q"))}, "no_final_reply"),
        ({"messages": chat((A, "r"))}, "no_query"),
        ({"messages": chat((S, "s"), (A, "r"))}, "no_query"),
        ({"messages": chat((A, "x"), (U, "q"), (A, "r"))}, "starts_with_assistant"),
        ({"messages": chat((U, "q"), ("tool", "x"), (A, "r"))}, "unsupported_content"),
        ({"messages": chat((U, "q"), (A, "x"), (S, "s"), (A, "r"))}, "context_not_user"),
        ({"messages": chat((U, "q"), (A, " "))}, "empty_reference"),
        ({"messages": chat((U, "\t"), (A, "r"))}, "empty_turn"),
        ({"prompt": "q", "response": ""}, "empty_reference"),
        ({"prompt": "q", "response": 3}, "wrong_shape"),
        ({"instruction": "q", "input": 3, "output": "r"}, "wrong_shape"),
    ],
)
def test_reject_reasons(raw, reason):
    with pytest.raises(RowReject) as caught:
        jsonl.ADAPTER.parse(raw)
    assert caught.value.reason == reason


def test_surrogates_in_every_text_are_counted():
    row = jsonl.ADAPTER.parse({"prompt": "\ud800", "chosen": "a\udc00", "rejected": "\ud800\ud800"})
    assert (row.messages[0]["content"], row.reference, row.rejected, row.replaced_surrogates) == (
        "\ufffd",
        "a\ufffd",
        "\ufffd\ufffd",
        4,
    )
