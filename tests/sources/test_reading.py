import gzip
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import resources, sources
from pipeline.errors import ConfigError, InputError, RowReject
from pipeline.sources import files
from tests.sources import resolving

ROW = b'{"prompt": "q", "response": "r"}\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "b-test.jsonl").write_bytes(ROW * 2)
    (tmp_path / "in" / "a-train.jsonl.gz").write_bytes(gzip.compress(ROW * 3))
    (tmp_path / "in" / "sub" / "c.json").write_bytes(b"[" + ROW.strip() + b"]")
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def resolve(input, name="jsonl", **options):
    warnings = []
    source = resolving.resolve(name, None if input is None else str(input), warn=warnings.append, **options)
    return source, warnings


def refused(input, name="jsonl", error=InputError, **options):
    with pytest.raises(error) as caught:
        resolve(input, name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_read_in_the_order_of_names(folder):
    source, warnings = resolve(folder)
    read = list(sources.records(source))
    assert [record.source_row for record in read] == list(range(6))
    places = [(Path(record.where).relative_to(folder).as_posix(), record.split) for record in read]
    assert places == [
        *((f"a-train.jsonl.gz:{line}", "train") for line in (1, 2, 3)),
        *((f"b-test.jsonl:{line}", "test") for line in (1, 2)),
        ("sub/c.json:1", "train"),
    ]
    assert (source.resolved, source.split, source.location, warnings) == ("file", "all", str(folder), [])


def test_split_chooses_files(folder):
    source, _ = resolve(folder, split="test")
    assert [record.split for record in sources.records(source)] == [
        "test"
    ] * 3  # c.json tells no split: it is the asked one
    (folder / "sub" / "c.json").unlink()
    assert "tell test, train" in refused(folder, split="validation")


def test_globs(folder):
    def names(pattern):
        read = sources.records(resolve(pattern)[0])
        return list(
            dict.fromkeys(Path(record.where.rpartition(":")[0]).relative_to(folder).as_posix() for record in read)
        )

    (folder / ".hidden.jsonl").write_bytes(ROW)
    (folder / "notes.txt").write_text("x")
    assert names(folder / "*.jsonl") == ["b-test.jsonl"]
    assert names(folder / "*") == ["a-train.jsonl.gz", "b-test.jsonl"]
    assert names(folder / "**" / "*.json*") == ["a-train.jsonl.gz", "b-test.jsonl", "sub/c.json"]
    assert names(folder / "[ab]-t*") == ["a-train.jsonl.gz", "b-test.jsonl"]
    assert "'notes.txt'" in resolve(folder / "*")[1][0]
    assert "no file matches" in refused(folder / "z*.jsonl")
    assert "no data file" in refused(folder / "n*.txt")
    # A file of that very name goes before the pattern.
    (folder / "x[ab].jsonl").write_bytes(ROW)
    assert names(folder / "x[ab].jsonl") == ["x[ab].jsonl"]


def test_a_glob_does_not_follow_links_out(folder, tmp_path):
    (tmp_path / "secret.jsonl").write_bytes(ROW)
    (folder / "out.jsonl").symlink_to(tmp_path / "secret.jsonl")
    assert "leads out of the input folder" in refused(folder / "*.jsonl")


def test_all_formats_of_a_folder_are_read(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"prompt": ["p"], "response": ["r"]}), folder / "d.parquet")
    (folder / "e.csv").write_text("prompt,response\nc,r\n")
    (folder / "f.parquet").write_bytes(b"")
    source, warnings = resolve(folder)
    assert [record.value["prompt"] for record in sources.records(source)] == ["q"] * 5 + ["p", "c", "q"]
    assert "f.parquet: empty" in warnings[0]


def test_a_cut_file_says_how_many_rows_to_take_and_taking_them_works(folder):
    noise = __import__("random").Random(0)
    rows = [b'{"prompt": "%x", "response": "r"}\n' % noise.getrandbits(2048) for _ in range(3000)]
    packed = gzip.compress(b"".join(rows))
    (folder / "b-test.jsonl").unlink()
    (folder / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    source, _ = resolve(folder)
    with pytest.raises(InputError, match=r"b\.jsonl\.gz: damaged.*only what comes before with --limit \d+$") as caught:
        list(sources.records(source))
    limit = int(str(caught.value).rpartition(" ")[2])
    assert 500 < limit < 3000
    read = sources.records(source)
    assert len([next(read) for _ in range(limit)]) == limit


def test_foreign_and_hidden_and_empty_files_are_skipped_aloud(folder):
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.jsonl").write_bytes(ROW)
    (folder / "z.jsonl").write_bytes(b"")
    source, warnings = resolve(folder)
    assert len(list(sources.records(source))) == 6
    assert len(warnings) == 2 and "'notes.txt'" in warnings[0] and "z.jsonl: empty" in warnings[1]


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    outside = tmp_path / "secret.jsonl"
    outside.write_bytes(ROW)
    (folder / "inside.jsonl").symlink_to(folder / "b-test.jsonl")
    assert len(list(sources.records(resolve(folder)[0]))) == 8
    (folder / "out.jsonl").symlink_to(outside)
    assert "leads out of the input folder" in refused(folder)
    (folder / "out.jsonl").unlink()
    (folder / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert "leads out of the input folder" in refused(folder)


def test_nothing_to_read(tmp_path):
    assert "no such file" in refused(tmp_path / "none.jsonl")
    assert "no such file" in refused("data/rows.jsonl")  # looks like a Hub id, but is a file's name
    assert "no data file" in refused(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(b"")
    assert "empty" in refused(tmp_path) and "empty" in refused(tmp_path / "a.jsonl")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a regular file nor a folder" in refused(tmp_path / "pipe")
    refused("a\0b")
    refused("a\nb\ud800")
    refused(tmp_path / "a\nb\udcff.jsonl")
    refused("x" * 5_000)
    assert "--input" in refused(None)
    assert "known are" in refused(tmp_path, "share-gpt", ConfigError)


@pytest.mark.parametrize("data", [b"\n \n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_file_without_rows(tmp_path, data):
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.jsonl: no rows in it; expected an object with"):
        list(sources.records(resolve(tmp_path / "a.jsonl")[0]))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(ROW)
    (tmp_path / "a.jsonl").chmod(0)
    assert "permissions" in refused(tmp_path / "a.jsonl")


def test_digest_covers_content_adapter_and_split_but_not_the_place(tmp_path):
    def digest(name, data, adapter="jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        return resolve(tmp_path / name, adapter)[0].digest

    first = digest("a.jsonl", ROW)
    assert first == digest("x/b.jsonl", ROW) == digest("a-train.jsonl", ROW)
    assert len({first, digest("a.jsonl", ROW * 2), digest("a-test.jsonl", ROW), digest("h.jsonl", ROW, "hh-rlhf")}) == 4


def test_bad_rows_keep_their_number(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(ROW + b"\n{bad\n" + ROW)
    read = list(sources.records(resolve(tmp_path / "a.jsonl")[0]))
    assert [(record.source_row, record.where.rpartition(":")[2]) for record in read] == [(0, "1"), (1, "3"), (2, "4")]
    assert isinstance(read[1].value, RowReject)


def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff.jsonl")
    path.write_bytes(ROW)
    source, _ = resolve(path)
    (record,) = sources.records(source)
    assert source.location.encode().endswith(b"a\\udcff.jsonl")
    assert record.where.encode().endswith(b"a\\udcff.jsonl:1")


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_means_the_bundled_sample_and_says_so(monkeypatch, name):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(name, "1")
    source, warnings = resolve(None, "hh-rlhf")
    assert (source.resolved, source.revision, source.split) == ("bundled-sample", None, "sample")
    assert len(warnings) == 1 and name in warnings[0] and "\n" not in warnings[0]
    rows = [sources.get("hh-rlhf").parse(record.value) for record in sources.records(source)]
    assert len(rows) >= 96 and all(row.rejected for row in rows)


def test_a_revision_is_for_the_hub(folder):
    assert "source.revision is for Hub data sets" in refused(folder, revision="abc")
    assert "source.revision says 'v2'" in refused("someone/data@main", "hh-rlhf", revision="v2")


def test_no_silent_substitutes(monkeypatch, tmp_path):
    assert "full source is required" in refused(None, "hh-rlhf", require_full=True)
    assert "no substitute for revision 'abc'" in refused(None, "hh-rlhf", revision="abc")
    assert "HF_HUB_OFFLINE is set" in refused("someone/data-set", "hh-rlhf")
    monkeypatch.setattr(resources, "folder", lambda name: tmp_path)
    assert "no sample is installed" in refused(None, "hh-rlhf")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("harmless-base-test-0000-1499.jsonl.gz", "test"),
        ("train.jsonl", "train"),
        ("train/dev.json", "validation"),
        ("latest.jsonl", None),
        ("data_eval_2.jsonl", "test"),
    ],
)
def test_split_of_a_name(name, split):
    assert files.split_of(name) == split


def test_resolved_source_is_plain_data(folder):
    source, _ = resolve(folder)
    assert replace(source) == source and hash(source)


def test_importing_stays_light():
    heavy = "{'datasets', 'pyarrow', 'huggingface_hub', 'numpy', 'zstandard'}"
    code = f"import sys, pipeline.sources; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_csv_file_with_another_separator_says_so(folder):
    for text in ("question;answer\nq;a\n", '"question";"answer"\n"q";"a"\n'):
        (folder / "own.csv").write_text(text, "utf-8")
        said = []
        read = list(sources.records(resolve(folder / "own.csv")[0], warn=said.append))
        assert [record.value for record in read] == [{"question": "q", "answer": "a"}]
        assert "separated by ';'" in said[0]
