"""`figa export`: what it writes beside the data, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_dataset
from pipeline.cli.main import main
from pipeline.dataset import manifest
from pipeline.errors import StorageError
from pipeline.exports import writing
from pipeline.storage.atomic import write_text


def republished(source: Path, out: Path, change: Callable[[pa.Table], pa.Table]) -> Path:
    """A data set as another run would have published it: the same but for its rows."""
    table = pq.read_table(source / "data")
    content = json.loads((source / "manifest.json").read_text("utf-8"))
    (out / "data").mkdir(parents=True)
    path = out / "data" / "train-00000-of-00001.parquet"
    changed = change(table)
    pq.write_table(changed, path)
    content["files"] = [manifest.file_entry(out, path, changed.num_rows)]
    manifest.write(out, content)
    return out


def run(*arguments: object) -> int:
    return main(["export", *(str(argument) for argument in arguments)])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["spa", "sequences"])
def test_the_same_export_twice_is_the_same_bytes(published: Path, tmp_path: Path, name: str) -> None:
    for out in ("one", "two"):
        assert run(published, "--format", name, "--out", tmp_path / out) == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_the_lineage_names_the_data_set(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(published, "--format", "dpo", "--out", tmp_path / "out", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    original = open_dataset(published).manifest
    assert content["lineage"]["run_digest"] == original["run_digest"]
    assert content["labels"] == original["labels"]
    entry = content["files"][0]
    assert entry == manifest.file_entry(tmp_path / "out", tmp_path / "out" / "train.parquet", 40)
    other = republished(published, tmp_path / "other", lambda table: table.slice(1))
    assert run(other, "--format", "dpo", "--out", tmp_path / "second", "--json") == 0
    assert json.loads(capsys.readouterr().out)["lineage"]["digest"] != content["lineage"]["digest"]


def test_pairs_that_the_consumer_would_drop_are_named(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(table: pa.Table) -> pa.Table:
        messages = table["messages"].to_pylist()
        messages[3] = [
            {"role": "user", "content": "a"},
            {"role": "system", "content": "b"},
            {"role": "user", "content": "c"},
        ]
        place = table.schema.get_field_index("messages")
        return table.set_column(place, "messages", pa.array(messages, table.schema.field("messages").type))

    source = republished(published, tmp_path / "source", interrupted)
    assert run(source, "--format", "llamafactory", "--out", tmp_path / "out") == 0
    assert "40 pairs = 39 exported + 1 skipped (1 turns_do_not_alternate)" in capsys.readouterr().out
    bad = open_dataset(source).to_table(["id"])["id"][3].as_py()
    skipped = (tmp_path / "out" / "skipped.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in skipped] == [{"id": bad, "reason": "turns_do_not_alternate"}]
    assert len(json.loads((tmp_path / "out" / "data.json").read_text("utf-8"))) == 39


@pytest.mark.parametrize("name", ["spa", "dpo", "sft", "sequences", "llamafactory"])
def test_an_empty_data_set_is_a_valid_export(published: Path, tmp_path: Path, name: str) -> None:
    empty = republished(published, tmp_path / "empty", lambda table: table.slice(0, 0))
    assert run(empty, "--format", name, "--out", tmp_path / "out") == 0
    data = tmp_path / "out" / ("data.json" if name in ("spa", "llamafactory") else "train.parquet")
    assert json.loads(data.read_text("utf-8")) == [] if data.suffix == ".json" else pq.read_table(data).num_rows == 0


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["--format", "dpp"],
            "spa, dpo, sft, kto, tpo, sdft, sequences, axolotl, tinker, tis-dpo, openrlhf, llamafactory",
        ),
        (["--format", "dpo", "--variant", "sharegpt"], "conversational, standard"),
    ],
)
def test_unknown_names_list_what_there_is(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert run(published, *arguments, "--out", tmp_path / "out") == 2
    assert named in refused(capsys)
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_data_set_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--format", "dpo", "--out", tmp_path / "out") == 2
    assert str(tmp_path) in refused(capsys)


def test_a_folder_in_use_is_left_alone(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", "utf-8")
    assert run(published, "--format", "dpo", "--out", tmp_path) == 2
    assert "not an empty folder" in refused(capsys)
    assert files(tmp_path) == {"thesis.txt": b"years of work"}
    assert run(published, "--format", "dpo", "--out", tmp_path / "thesis.txt") == 2
    assert "not an empty folder" in refused(capsys)
    assert run(published, "--format", "dpo", "--out", published / "data" / "dpo") == 2
    assert "data set's own folder" in refused(capsys)


@pytest.mark.parametrize("refused_file", ["skipped.jsonl", "dataset_info.json", "README.md", "export.json"])
def test_what_failed_half_way_is_gone_and_the_same_command_works(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_file: str
) -> None:
    def fails(path: Path, text: str) -> None:
        if path.name == refused_file:
            raise StorageError(f"{path}: no space left")
        write_text(path, text)

    command = (published, "--format", "llamafactory", "--out", tmp_path / "out")
    monkeypatch.setattr(writing, "write_text", fails)
    assert run(*command) == 1 and not files(tmp_path / "out")
    monkeypatch.undo()
    # Killed, not stopped: its temporary file is left.
    (tmp_path / "out" / ".tmp-123-train.json").write_text("[")
    assert run(*command) == 0
    assert {"export.json", "README.md", "dataset_info.json", "skipped.jsonl"} < files(tmp_path / "out").keys()


def test_a_damaged_data_set_is_not_exported(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(published, tmp_path / "broken", ignore=shutil.ignore_patterns("work"))
    path = sorted((broken / "data").glob("*.parquet"))[1]
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert run(broken, "--format", "sequences", "--out", tmp_path / "out") == 1
    assert path.name in refused(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["gone", "another"])
def test_rendered_text_needs_the_labels_own_tokenizer(
    published: Path, tmp_path: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    moved = shutil.copytree(published, tmp_path / "moved", ignore=shutil.ignore_patterns("work"))
    content: dict[str, Any] = json.loads((moved / "manifest.json").read_text("utf-8"))
    content["labels"]["tokenizer"] = str(tmp_path / "tokenizer")
    manifest.write(moved, content)
    if change == "another":
        shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
        template = tmp_path / "tokenizer" / "chat_template.jinja"
        template.write_text(template.read_text("utf-8").replace("<|im_end|>\n", "<|im_end|>"), "utf-8")
    assert run(moved, "--format", "dpo", "--variant", "standard", "--out", tmp_path / "out") == 2
    assert "labels.tokenizer" in refused(capsys)
    assert run(moved, "--format", "dpo", "--out", tmp_path / "out") == 0, "messages need no tokenizer"


def test_texts_are_refused_where_llamafactory_would_stop_at_the_chat_template(
    published: Path, tmp_path: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `template` it looks for the place of the system prompt: Gemma and Llama 2 put that into the user's turn."""
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "gemma")
    (folder / "chat_template.jinja").write_text(
        "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
        "{{ system if loop.first else '' }}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "utf-8",
    )
    again = tmp_path / "again"
    assert main(["relabel", str(published), "--tokenizer", str(folder), "--out", str(again)]) == 0
    capsys.readouterr()
    assert run(again, "--format", "llamafactory", "--out", tmp_path / "texts") == 2
    assert "--variant tokenized gives those" in refused(capsys)
    assert run(again, "--format", "llamafactory", "--variant", "tokenized", "--out", tmp_path / "tokens") == 0
