"""URLs: fsspec's own memory store, and a real S3 protocol on the loopback interface."""

from __future__ import annotations

import bz2
import gzip
import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeline import sources
from pipeline.errors import InputError
from pipeline.sources import files
from pipeline.storage.remote import Stream
from tests.sources.resolving import resolve

LINES = b"".join(json.dumps({"prompt": f"q{n}", "response": "r"}).encode() + b"\n" for n in range(50))


@pytest.fixture
def store() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def read(url: str, **options: Any) -> tuple[sources.ResolvedSource, list[sources.Record], list[str]]:
    warnings: list[str] = []
    source = resolve("jsonl", url, warn=warnings.append, **options)
    return source, list(sources.records(source, warn=warnings.append)), warnings


def refused(url: str) -> str:
    with pytest.raises(InputError) as caught:
        read(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.bz2", bz2.compress),
        ("a.jsonl.zst", zstandard.compress),
    ],
)
def test_files_plain_and_packed(store: Any, name: str, pack: Any) -> None:
    store.pipe(f"/in/{name}", pack(LINES))
    source, found, warnings = read(f"memory://in/{name}")
    assert [record.value["prompt"] for record in found] == [f"q{n}" for n in range(50)]
    assert found[6].where == f"memory:///in/{name}:7" and source.location == f"memory://in/{name}" and not warnings


def test_parquet(store: Any) -> None:
    with store.open("/in/a.parquet", "wb") as file:
        pq.write_table(pa.table({"prompt": ["a", "b"], "response": ["c", "d"]}), file)
    assert [record.value for record in read("memory://in/a.parquet")[1]] == [
        {"prompt": "a", "response": "c"},
        {"prompt": "b", "response": "d"},
    ]


def test_folders_and_globs_in_the_order_of_names(store: Any) -> None:
    for name in ("b-test.jsonl", "a.jsonl", "sub/c.jsonl.gz", "notes.txt", ".hidden.jsonl"):
        store.pipe(f"/in/{name}", gzip.compress(LINES[:60]) if name.endswith("gz") else LINES[:60])
    source, found, warnings = read("memory://in")
    places = list(dict.fromkeys(record.where.rpartition(":")[0] for record in found))
    assert places == [f"memory:///in/{name}" for name in ("a.jsonl", "b-test.jsonl", "sub/c.jsonl.gz")]
    assert len(warnings) == 1 and "'notes.txt'" in warnings[0] and source.split == "all"
    assert {record.where.rpartition(":")[0] for record in read("memory://in/*.jsonl")[1]} == set(places[:2])
    assert {record.split for record in read("memory://in", split="test")[1]} == {"test"}


def test_the_digest_is_of_the_content(store: Any) -> None:
    store.pipe("/x/a.jsonl", LINES)
    store.pipe("/y/b.jsonl", LINES)
    first = read("memory://x/a.jsonl")[0].digest
    assert read("memory://y/b.jsonl")[0].digest == first
    store.pipe("/y/b.jsonl", LINES + LINES)
    assert read("memory://y/b.jsonl")[0].digest != first


def test_what_cant_be_read_is_one_clear_line(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "memory://in/none.jsonl: no such file or folder" in refused("memory://in/none.jsonl")
    assert "no such file" in refused("memory://in/*.jsonl")
    store.pipe("/in/a.txt", b"x")
    store.pipe("/in/b.txt", b"x")
    assert "no data file" in refused("memory://in")
    assert "nosuch" in refused("nosuch://in/a.jsonl")
    store.pipe("/in/a.jsonl", b"")
    assert "empty, 0 bytes" in refused("memory://in/a.jsonl")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    # fsspec remembers what another test has loaded.
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    message = refused("s3://bucket/a.jsonl")
    assert "s3:// needs another package" in message and "pip install -e '.[s3]'" in message


def test_a_store_that_fails_in_the_middle(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pipe("/in/a.jsonl", gzip.compress(LINES)[:-20])
    with pytest.raises(InputError, match=r"memory:///in/a.jsonl: damaged, cut short .* rows were read before"):
        read("memory://in/a.jsonl")
    stream = Stream(type("Broken", (), {"read": lambda self, n: 1 / 0, "close": lambda self: None})())
    with pytest.raises(OSError, match="ZeroDivisionError"):
        stream.read(5)


def test_no_secret_of_an_address_is_shown() -> None:
    assert "password" in refused("s3://key:hunter2@bucket/a.jsonl")
    assert "hunter2" not in refused("s3://key:hunter2@bucket/a.jsonl")
    signed = files.RemoteFile("https://host/path/a.jsonl.gz?X-Signature=hunter2", 5)
    assert (str(signed), signed.name) == ("https://host/path/a.jsonl.gz", "a.jsonl.gz")
    assert "hunter2" not in refused("http://127.0.0.1:1/a.jsonl?sig=hunter2")


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "NO_PROXY": "*",
        }.items():
            patch.setenv(name, value)
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("figa")
        yield fs
    server.stop()


def test_s3(bucket: Any) -> None:
    bucket.pipe("figa/in/a.jsonl.gz", gzip.compress(LINES))
    bucket.pipe("figa/in/b.jsonl", LINES[:60])
    fsspec.filesystem("s3").invalidate_cache()
    source, found, _ = read("s3://figa/in")
    assert len(found) == 50 + len(LINES[:60].splitlines())
    assert found[0].where == "s3://figa/in/a.jsonl.gz:1" and source.files[0].path.tag is not None
    assert read("s3://figa/in/*.gz")[0].digest != source.digest
    assert "no such file" in refused("s3://figa/none.jsonl")
    assert "s3://nobucket/a.jsonl" in refused("s3://nobucket/a.jsonl")
