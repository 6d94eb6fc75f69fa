"""Shapes that people's files have: each read right, or refused by name, through the same door as a run.

The inputs are written here. With FIGA_SOURCE_CASES naming a folder of such files, those of the same names are read too.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline import sources
from pipeline.config.settings import SourceSettings
from pipeline.errors import ConfigError, InputError, RowReject

Read = tuple[list[Any], list[str]]
HI, HELLO = ("user", "Hi"), ("assistant", "Hello!")
GREETING = ([HI], "Hello!", None)
TEXT = "Hi"


def read(path: Path | str, name: str = "jsonl", **settings: Any) -> Read:
    """Each row as (turns, reference, rejected), or the reason of its reject; and what the run says."""
    said: list[str] = []
    options = SourceSettings(name=name, input=str(path), **settings)
    source = sources.resolve_source(options, said.append)
    adapters = sources.open_adapters(options, source, said.append)
    found: list[Any] = []
    for record in sources.records(source, warn=said.append):
        try:
            if isinstance(record.value, RowReject):
                raise record.value
            row = adapters[record.source].parse(record.value)
            found.append(([(m["role"], m["content"]) for m in row.messages], row.reference, row.rejected))
        except RowReject as reject:
            assert {"expected", "got"} <= set(reject.evidence)
            found.append(reject.reason)
    return found, said


def chat(*turns: tuple[str, str], role: str = "role", content: str = "content") -> list[dict[str, str]]:
    return [{role: who, content: text} for who, text in turns]


def call() -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}]}


PIRATE = [("system", "Arr."), ("user", "How hot is it?"), ("assistant", "9,900 F."), ("user", "And in Celsius?")]
MORE = [("user", "1"), ("assistant", "2"), ("user", "3")]
ROWS: dict[str, tuple[dict[str, Any], Any]] = {
    # a conversation with separate replies
    "turns": (
        {"conversations": chat(("human", "1"), ("gpt", "2"), ("human", "3"), role="from", content="value")}
        | {side: {"from": "gpt", "value": text} for side, text in (("chosen", "4"), ("rejected", "5"))},
        (MORE, "4", "5"),
    ),
    "texts": ({"messages": chat(*MORE), "chosen": "4", "rejected": "5"}, (MORE, "4", "5")),
    "lists": (
        {"messages": chat(*MORE), "chosen": chat(("assistant", "4")), "rejected": chat(("assistant", "5"))},
        (MORE, "4", "5"),
    ),
    "system column": ({"system": "S", "conversations": chat(HI), "chosen": "4"}, ([("system", "S"), HI], "4", None)),
    "the reply is chosen": (
        {"messages": chat(HI, HELLO), "chosen": "Hello!", "rejected": "No."},
        ([HI], "Hello!", "No."),
    ),
    "another reply than chosen": (
        {"messages": chat(HI, HELLO), "chosen": "Hey.", "rejected": "No."},
        "context_not_user",
    ),
    "reply of its own": ({"messages": chat(HI), "response": "Hello!"}, GREETING),
    "whole beside an answer": ({"messages": chat(HI, HELLO), "answer": "42"}, GREETING),
    "whole beside a prompt": ({"prompt": "Hi", "prompt_id": "1", "messages": chat(HI, HELLO)}, GREETING),
    "past beside a prompt": (
        {"conversation": chat(("user", "1"), ("assistant", "2")), "prompt": "3", "response": "4"},
        (MORE, "4", None),
    ),
    # a prompt beside a whole conversation
    "chosen is whole": (
        {"prompt": "And in Celsius?"}
        | {side: chat(*PIRATE, ("assistant", text)) for side, text in (("chosen", "5,500 C."), ("rejected", "Hot."))},
        (PIRATE, "5,500 C.", "Hot."),
    ),
    "completion is whole": (
        {"prompt": "And in Celsius?", "completion": chat(*PIRATE, HELLO)},
        (PIRATE, "Hello!", None),
    ),
    "the prompt has more": (
        {"prompt": chat(("system", "S"), HI), "chosen": chat(HI, HELLO), "rejected": chat(HI, ("assistant", "5"))},
        ([("system", "S"), HI], "Hello!", None),
    ),
    # Alpaca's history and system
    "history": (
        {"instruction": "3", "input": "", "output": "4", "system": "S", "history": [["1", "2"]]},
        ([("system", "S"), *MORE], "4", None),
    ),
    "history of turns": ({"instruction": "3", "output": "4", "history": chat(*MORE[:2])}, (MORE, "4", None)),
    "history as JSON text": ({"instruction": "3", "output": "4", "history": '[["1", "2"]]'}, (MORE, "4", None)),
    "no history": ({"instruction": "Hi", "output": "Hello!", "history": [], "system": None}, GREETING),
    "history in words": ({"instruction": "Hi", "output": "Hello!", "history": "before"}, "wrong_shape"),
    # KTO
    "label true": ({"prompt": "Hi", "completion": "Hello!", "label": True}, GREETING),
    "label false": ({"prompt": "Hi", "completion": "No.", "label": False}, "undesirable_reference"),
    "label 0": ({"prompt": "Hi", "completion": "No.", "label": 0}, "undesirable_reference"),
    "label in words": ({"prompt": "Hi", "completion": "No.", "label": "False"}, "undesirable_reference"),
    "label of turns": ({"prompt": chat(HI), "completion": chat(HELLO), "label": False}, "undesirable_reference"),
    "kto_tag": ({"messages": chat(HI, HELLO), "kto_tag": False}, "undesirable_reference"),
    "label of a class": ({"prompt": "Hi", "response": "Hello!", "label": 3}, GREETING),
    # conversations
    "capybara": (
        {"conversation": [{"input": "1", "output": "2"}, {"input": "3", "output": "4"}], "source": "x"},
        (MORE, "4", None),
    ),
    "lima": ({"conversations": ["1", "2", "3", "4"], "source": "x"}, (MORE, "4", None)),
    "pairs of texts": ({"conversations": [["1", "2"], ["3", "4"]]}, (MORE, "4", None)),
    "role and text": ({"messages": [["user", "Hi"], ["assistant", "Hello!"]]}, GREETING),
    "JSON text of texts": ({"messages": '["Hi", "Hello!"]'}, GREETING),
    "fields merged": ({"conversations": [{"input": None, "human": "Hi", "gpt": "Hello!"}]}, GREETING),
    "two questions in a turn": ({"conversations": [{"input": "1", "human": "Hi", "gpt": "Hello!"}]}, "wrong_shape"),
    "role as key": ({"conversation": [{"human": "Hi"}, {"bot": "Hello!"}]}, GREETING),
    "prompter": ({"messages": chat(("prompter", "Hi"), HELLO, content="text")}, GREETING),
    "capitals": (
        {"conversation": chat(("User", "Hi"), ("Assistant", "Hello!"), role="from", content="value")},
        GREETING,
    ),
    "human and bot": ({"messages": chat(("human", "Hi"), ("bot", "Hello!"))}, GREETING),
    "template roles": ({"messages": chat(("<|user|>", "Hi"), ("<|assistant|>", "Hello!"))}, GREETING),
    "unknown role": ({"messages": chat(("narrator", "Hi"), HELLO)}, "unknown_role"),
    "JSON text": ({"messages": json.dumps(chat(HI, HELLO))}, GREETING),
    "JSON text of chosen": (
        {"prompt": "Hi"} | {side: json.dumps(chat(HI, ("assistant", side))) for side in ("chosen", "rejected")},
        ([HI], "chosen", "rejected"),
    ),
    "Python's text": ({"conversations": str(chat(HI, HELLO, role="from", content="value"))}, GREETING),
    "a reply in JSON": ({"prompt": "Hi", "response": '{"a": [1]}'}, ([HI], '{"a": [1]}', None)),
    "a list of answers": ({"question": "Hi", "answer": ["Hello!"]}, "wrong_shape"),
    "parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, *chat(HELLO)]}, GREETING),
    "parts with nulls": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "image_url": None}]}, *chat(HELLO)]},
        GREETING,
    ),
    "null-merged turns": (
        {"messages": [{"from": None, "value": None, "tool_calls": None, **turn} for turn in chat(HI, HELLO)]},
        GREETING,
    ),
    "null-merged rows": ({"messages": None, "prompt": "Hi", "response": "Hello!", "chosen": None}, GREETING),
    "lists by field": ({"messages": {"role": ["user", "assistant"], "content": ["Hi", "Hello!"]}}, GREETING),
    "lists of two lengths": ({"messages": {"role": ["user"], "content": ["Hi", "Hello!"]}}, "wrong_shape"),
    "empty system": ({"conversations": chat(("system", ""), HI, HELLO)}, GREETING),
    "no turns": ({"conversations": []}, "wrong_shape"),
    "begins with a reply": (
        {"conversations": chat(("bing", "Hi"), HI, ("chatgpt", "Hello!"))},
        "starts_with_assistant",
    ),
    # what is no text
    "a tool's call": (
        {"messages": [*chat(HI), call(), {"role": "tool", "content": "ok"}, *chat(HELLO)]},
        "unsupported_content",
    ),
    "ShareGPT's call": ({"conversations": chat(HI, ("function_call", "{}"), HELLO)}, "unsupported_content"),
    "a call in text": ({"messages": json.dumps([*chat(HI), call()])}, "unsupported_content"),
    "tools": ({"prompt": "Hi", "response": "Hello!", "tools": '[{"name": "f"}]'}, "unsupported_content"),
    "no tools": ({"prompt": "Hi", "response": "Hello!", "tools": "[]", "images": []}, GREETING),
    "images": ({"messages": chat(HI, HELLO), "images": ["a.png"]}, "unsupported_content"),
    "image part": (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, *chat(HELLO)]},
        "unsupported_content",
    ),
    # exact texts
    "Dolly": (
        {"instruction": "Who?", "context": "Ada.", "response": "She."},
        ([("user", "Who?\n\nAda.")], "She.", None),
    ),
    "spaces": ({"prompt": "Hi ->", "completion": " Hello!\n"}, ([("user", "Hi ->")], " Hello!\n", None)),
    "NaN": ({"instruction": "Hi", "input": float("nan"), "output": "Hello!"}, GREETING),
    "NaN for a reply": ({"prompt": "Hi", "response": float("nan"), "score": 1.0}, "wrong_shape"),
}


def as_jsonl(row: dict[str, Any], folder: Path) -> Path:
    (folder / "a.jsonl").write_text(json.dumps(row) + "\n")
    return folder / "a.jsonl"


def as_array(row: dict[str, Any], folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps([row]))
    return folder / "a.json"


def as_gzip(row: dict[str, Any], folder: Path) -> Path:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    return folder / "a.jsonl.gz"


def as_zstd(row: dict[str, Any], folder: Path) -> Path:
    (folder / "in").mkdir()
    (folder / "in" / "a.jsonl.zst").write_bytes(zstandard.compress(json.dumps(row).encode()))
    return folder / "in"


def as_document(row: dict[str, Any], folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(row, indent=1))
    return folder / "a.json"


def as_parquet(row: dict[str, Any], folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist([row]), folder / "a.parquet")
    return folder / "a.parquet"


def as_arrow(row: dict[str, Any], folder: Path) -> Path:
    table = pa.Table.from_pylist([row])
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("dataset_info.json", "state.json"):
        (folder / name).write_text("{\n}")
    return folder


FORMATS: list[Callable[[dict[str, Any], Path], Path]] = [
    as_jsonl,
    as_array,
    as_gzip,
    as_zstd,
    as_document,
    as_parquet,
    as_arrow,
]


@pytest.mark.parametrize("write", FORMATS)
def test_each_shape_in_each_format(write: Callable[[dict[str, Any], Path], Path], tmp_path: Path) -> None:
    got = {}
    for number, (name, (row, _)) in enumerate(ROWS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            path = write(row, folder)
        except pa.ArrowException:  # lists of two kinds in one column
            continue
        got[name] = read(path)[0]
    assert got == {name: [ROWS[name][1]] for name in got} and len(got) > len(ROWS) - 4


QUESTIONS = [{"prompt": "Hi", "response": "Hello!"}, {"prompt": "Bye", "response": "Bye!"}]
BOTH = [GREETING, ([("user", "Bye")], "Bye!", None)]
PLAIN = json.dumps(QUESTIONS[0]).encode()
COLUMNS = {name: {str(n): row[name] for n, row in enumerate(QUESTIONS)} for name in QUESTIONS[0]}
FILES: dict[str, tuple[bytes, Any, str]] = {
    "backslash.csv": (
        b'prompt,response\n"He said \\"hi\\"","ok"\n',
        [([("user", 'He said "hi"')], "ok", None)],
        "doubled",
    ),
    "bom_crlf.csv": (
        b'\xef\xbb\xbfprompt,response\r\n"multi\r\nline","ok"\r\n',
        [([("user", "multi\r\nline")], "ok", None)],
        "",
    ),
    "cp1252.csv": (
        b'prompt,response\n"Caf\xe9?","Oui \x96 d\xe9j\xe0"\nHi,Hello!\n',
        [([("user", "Café?")], "Oui – déjà", None), GREETING],
        "Windows-1252",
    ),
    "excel.csv": (b"sep=,\nprompt,response\nHi,Hello!\n", [GREETING], ""),
    "excel2.csv": (b"sep=;\r\nprompt;response\r\nHi;Hello!\r\n", [GREETING], ""),
    "semi.csv": (b"prompt;response\nHi;Hello!\n", [GREETING], "separated by ';'"),
    "tabs.csv": (b"prompt\tresponse\nHi\tHello!\n", [GREETING], "separated by"),
    "pandas_index.csv": (
        b',prompt,response\n0,"Hi, ""you""?","Hello\nthere"\n1,Bye,\n',
        [([("user", 'Hi, "you"?')], "Hello\nthere", None), "empty_reference"],
        "",
    ),
    "sq.csv": (
        b'prompt,response\nIt\'s,"a, b"\n  spaced , x \n',
        [([("user", "It's")], "a, b", None), ([("user", "  spaced ")], " x ", None)],
        "",
    ),
    "trailing.csv": (b"prompt,response,,\nHi,Hello!,,\nBye,Bye!\n", BOTH, ""),
    "kto.csv": (
        b"prompt,completion,label\nHi,No.,False\nHi,Hello!,True\n",
        ["undesirable_reference", GREETING],
        "label =",
    ),
    "commas.tsv": (b"prompt,response\nHi,Hello!\n", [GREETING], "separated by ','"),
    "german.csv": (
        "prompt;response\nCafé?;déjà\n".encode("cp1252"),
        [([("user", "Café?")], "déjà", None)],
        "Windows-1252",
    ),
    "bad_first.json": (b"{bad\n" + PLAIN, ["malformed_json", GREETING], ""),
    "wrapped_chats.json": (
        json.dumps({"conversations": [{"id": 1, "messages": chat(HI, HELLO)}]}).encode(),
        [GREETING],
        "those in 'conversations'",
    ),
    "labels.jsonl": (
        b"\n".join(PLAIN[:-1] + b', "label": %s}' % label for label in (b"false", b"true", b'"other"')),
        ["undesirable_reference", GREETING, GREETING],
        "",
    ),
    "pretty_one.json": (json.dumps(QUESTIONS[0], indent=1).encode(), [GREETING], ""),
    "pretty_one.jsonl": (json.dumps(QUESTIONS[0], indent=1).encode(), [GREETING], ""),
    "pretty_many.jsonl": (b"\n".join(json.dumps(row, indent=2).encode() for row in QUESTIONS), BOTH, ""),
    "single_line.json": (PLAIN, [GREETING], ""),
    "lines.json": (b"\n".join(json.dumps(row).encode() for row in QUESTIONS), BOTH, ""),
    "wrapped.json": (json.dumps({"version": "1", "data": QUESTIONS}, indent=1).encode(), BOTH, "those in 'data'"),
    "wrapped_line.json": (json.dumps({"rows": QUESTIONS}).encode(), BOTH, "those in 'rows'"),
    "pandas_columns.json": (json.dumps(COLUMNS).encode(), BOTH, "as pandas writes them"),
    "pandas_index.json": (json.dumps({str(n): row for n, row in enumerate(QUESTIONS)}).encode(), BOTH, "its values"),
    "pandas_split.json": (
        json.dumps(
            {"columns": list(QUESTIONS[0]), "index": [0, 1], "data": [list(r.values()) for r in QUESTIONS]}
        ).encode(),
        BOTH,
        "names in 'columns'",
    ),
    "lists.json": (
        json.dumps({name: [row[name] for row in QUESTIONS] for name in QUESTIONS[0]}).encode(),
        BOTH,
        "a list each",
    ),
    "nan.jsonl": (b'{"instruction": "Hi", "input": NaN, "output": "Hello!"}\n', [GREETING], ""),
    "three_shapes.jsonl": (
        b"\n".join(
            json.dumps({name: chat(HI, HELLO)}).encode() for name in ("messages", "conversation", "conversations")
        ),
        [GREETING] * 3,
        "of others: messages = 'conversation' | messages = 'conversations'",
    ),
    "late_system.jsonl": (
        b"\n".join(
            [json.dumps({"prompt": f"{n}", "response": "a"}).encode() for n in range(1000)]
            + [PLAIN[:-1] + b', "system": "S"}']
        ),
        None,
        "",
    ),
    "ratings.jsonl": (
        b"\n".join(json.dumps(row | {"label": n}).encode() for n, row in zip((0, 4), QUESTIONS, strict=True)),
        BOTH,
        "",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_each_file(name: str, tmp_path: Path) -> None:
    data, wanted, message = FILES[name]
    (tmp_path / name).write_bytes(data)
    found, said = read(tmp_path / name)
    if wanted is None:
        assert found[-1] == ([("system", "S"), HI], "Hello!", None) and len(found) == 1001
    else:
        assert found == wanted
    assert message in "\n".join(said)
    assert message or len(said) == 1  # nothing else is worth a word
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
    assert read(tmp_path / f"{name}.gz")[0] == found


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("utf16.csv", "prompt,response\nHi,Hello\n".encode("utf-16"), "save it as UTF-8"),
        (
            "a.json",
            json.dumps({"train": QUESTIONS, "test": QUESTIONS}).encode(),
            "several lists of rows, 'train', 'test'",
        ),
        ("a.json", b'{\n"prompt": "Hi",\n"response": "Hel', "over several lines that can't be read"),
    ],
)
def test_refused_by_name(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_the_reading_of_two_possible_ones_is_said(tmp_path: Path) -> None:
    for name, goes_before in (("chosen is whole", True), ("completion is whole", True), ("label true", False)):
        _, said = read(as_jsonl(ROWS[name][0], tmp_path))
        assert ("goes before 'prompt'" in said[0]) == goes_before
    _, said = read(as_jsonl({"prompt": "Hi"} | {"chosen": chat(HI, HELLO)}, tmp_path))
    assert said == ["fields guessed: prompt = 'prompt', reference = 'chosen'"]


def test_parquet_of_other_types(tmp_path: Path) -> None:
    turn = pa.map_(pa.string(), pa.string())
    turns = [[("from", "human"), ("value", "Hi")], [("from", "gpt"), ("value", "Hello!")]]
    pq.write_table(pa.table({"conversations": pa.array([turns], pa.list_(turn))}), tmp_path / "maps.parquet")
    coded = {name: pa.array([row[name] for row in QUESTIONS]).dictionary_encode() for name in QUESTIONS[0]}
    pq.write_table(pa.table(coded), tmp_path / "dict.parquet")
    large = pa.large_list(
        pa.struct([("role", pa.string()), ("content", pa.large_string()), ("tool_calls", pa.list_(pa.string()))])
    )
    pq.write_table(pa.table({"messages": pa.array([chat(HI, HELLO)], large)}), tmp_path / "nested.parquet")
    single = {"prompt": ["Hi"], "chosen": pa.array([{"role": "assistant", "content": "Hello!"}])}
    pq.write_table(pa.table(single), tmp_path / "single.parquet")
    wanted = {"maps": [GREETING], "dict": BOTH, "nested": [GREETING], "single": [GREETING]}
    assert {name: read(tmp_path / f"{name}.parquet")[0] for name in wanted} == wanted


def test_ignored_content_is_left_out(tmp_path: Path) -> None:
    tool = {"role": "tool", "content": "ok"}
    rows = [
        {"messages": [*chat(HI), call(), tool, *chat(HELLO)], "tools": "[1]"},
        {"messages": json.dumps([*chat(HI), call(), tool, *chat(HELLO)])},
        {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}, *chat(HELLO)]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path / "a.jsonl")[0] == ["unsupported_content"] * 3
    assert read(tmp_path / "a.jsonl", ignore=("tools",))[0] == [GREETING, GREETING, "unsupported_content"]
    assert read(tmp_path / "a.jsonl", ignore=("tools", "images"))[0] == [GREETING] * 3


def test_columns_to_keep_are_there_or_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(PLAIN)
    with pytest.raises(ConfigError, match=r"no row of the source has 'promt'.*did you mean prompt"):
        read(tmp_path / "a.jsonl", keep=("promt",))


def saved(folder: Path, row: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    as_arrow(row, folder)


def test_a_saved_data_set_of_splits(tmp_path: Path) -> None:
    for split, row in zip(("train", "test"), QUESTIONS, strict=True):
        saved(tmp_path / split, row)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    found, said = read(tmp_path)
    assert found == BOTH[:1] and "split train is read, without split test" in "\n".join(said)
    assert read(tmp_path, split="test")[0] == BOTH[1:]
    with pytest.raises(InputError, match="without split 'dev': it has test, train; name one"):
        read(tmp_path, split="dev")


def test_a_feather_file(tmp_path: Path) -> None:
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.Table.from_pylist(QUESTIONS).schema) as writer:
        writer.write_table(pa.Table.from_pylist(QUESTIONS))
    assert read(tmp_path / "a.arrow")[0] == BOTH


def clone(folder: Path, configs: str) -> Path:
    (folder / "data").mkdir()
    for name, row in zip(("train_sft", "test_sft"), QUESTIONS, strict=True):
        (folder / "data" / f"{name}-00000.jsonl").write_text(json.dumps(row))
    (folder / "README.md").write_text(f"---\nlicense: mit\n{configs}---\n# A data set\n")
    (folder / "dataset_infos.json").write_text("{}")
    return folder


CARD = """configs:
- config_name: default
  data_files:
  - split: train_sft
    path: data/train_sft-*
  - split: test_sft
    path:
    - data/test_sft-*
"""


def test_a_clone_of_a_data_set(tmp_path: Path) -> None:
    folder = clone(tmp_path, "")
    found, said = read(folder)
    assert found == BOTH[:1] and "without split test" in "\n".join(said)
    (folder / "README.md").write_text(f"---\n{CARD}---\n")
    with pytest.raises(InputError, match=r"it has test_sft, train_sft; name one with --set source.split=NAME"):
        read(folder)
    assert read(folder, split="test_sft")[0] == BOTH[1:]
    (folder / "README.md").write_text("---\n" + CARD.replace("train_sft\n", "train\n") + "---\n")
    assert read(folder)[0] == BOTH[:1]
    other = CARD.replace("configs:\n", "").replace("default", "other")
    (folder / "README.md").write_text(f"---\n{CARD.replace('default', 'first')}{other}---\n")
    with pytest.raises(InputError, match=r"several configurations, first, other"):
        read(folder)


@pytest.mark.skipif("FIGA_SOURCE_CASES" not in os.environ, reason="needs a folder of files")
def test_the_same_files_of_a_folder() -> None:
    folder = Path(os.environ["FIGA_SOURCE_CASES"])
    for path in sorted(folder.iterdir()):
        try:
            found, _ = read(path)
        except InputError as error:
            assert path.name == "utf16.csv", error
        else:
            assert any(isinstance(row, tuple) for row in found), path
