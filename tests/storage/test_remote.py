"""Output folders behind URLs: fsspec's own memory store, and a real S3 protocol on the loopback interface."""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import pipeline
from pipeline.cli.main import main
from pipeline.config.settings import CurationConfig
from pipeline.curate import curate, in_threads
from pipeline.dataset import manifest
from pipeline.errors import ConfigError, InputError, StorageError, StoreUnreachable, UsageError
from pipeline.storage import remote, stage_files
from pipeline.storage.location import local_side, location
from pipeline.storage.lock import run_lock
from pipeline.storage.remote import RemotePath
from tests import s3
from tests.conftest import ROOT, Silent, as_arguments, child_environment

Settings = Callable[..., CurationConfig]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    pytest.importorskip("s3fs")
    with s3.server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield f"s3://{s3.BUCKET}"


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIGA_STATE", str(tmp_path / "state"))


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> RemotePath:
    """An empty folder of either store."""
    base = request.getfixturevalue("bucket") if request.param == "s3" else "memory://figa"
    found = location(f"{base}/{tmp_path.name}")
    assert isinstance(found, RemotePath)
    return found


def put(path: Any, data: bytes = b"x") -> None:
    path.put(data, over=None)


def test_a_path_of_a_store(root: RemotePath) -> None:
    for name in ("data/a.parquet", "data/b.parquet", "data/deep/c.parquet", "data/a.json"):
        put(root / name)
    assert sorted(path.name for path in (root / "data").glob("*.parquet")) == ["a.parquet", "b.parquet"]
    assert sorted(path.name for path in root.rglob("*.parquet")) == ["a.parquet", "b.parquet", "c.parquet"]
    assert [str(path) for path in root.glob("data/*.json")] == [f"{root}/data/a.json"]
    assert [str(path) for path in root.glob("*")] == [f"{root}/data"]
    assert not list((root / "none").glob("*")) and root.is_dir() and not root.is_file()
    assert str(pickle.loads(pickle.dumps(root / "a"))) == f"{root}/a"
    assert (root / "data" / "a.json").relative_to(root).as_posix() == "data/a.json"
    assert not (root / "../../x").resolve().is_relative_to(root.resolve())
    with pytest.raises(TypeError, match="not on this machine's disk"):
        os.fspath(root)
    (root / "data" / "a.json").replace(root / ".superseded" / "a.json")
    assert (root / ".superseded" / "a.json").read_text() == "x" and not (root / "data" / "a.json").exists()
    with pytest.raises(FileNotFoundError):
        (root / "data" / "a.json").read_bytes()
    (root / "data" / "a.json").unlink(missing_ok=True)


def test_an_object_is_put_on_the_condition_of_what_is_there(root: RemotePath) -> None:
    path = root / "x"
    first = path.put(b"one", over=None)
    with pytest.raises(FileExistsError):
        path.put(b"two", over=None)
    # The answer to a first try may have been lost on its way.
    assert path.put(b"one", over=None) == first
    path.put(b"three", over=first)
    with pytest.raises(FileExistsError):
        path.put(b"four", over=first)
    assert path.read_bytes() == b"three"


@pytest.mark.parametrize(
    "url", ["s3://key:hunter2@bucket/x", "s3://bucket/x?versionId=1", "s3://bucket/*", "https://host/x", "s3://"]
)
def test_urls_that_are_no_output_folder(url: str, settings: Settings) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(output__dir=url)
    assert "hunter2" not in str(caught.value) and "setting output.dir" in str(caught.value)


def test_file_urls_are_local(tmp_path: Path) -> None:
    assert location(f"file://{tmp_path}/x") == tmp_path / "x" and location(tmp_path) is tmp_path
    assert local_side(tmp_path) is tmp_path


def test_a_run_gives_the_same_bytes_in_a_store(root: RemotePath, settings: Settings) -> None:
    here, there = settings(), settings(output__dir=str(root))
    curate(here, in_threads, Silent())
    curate(there, in_threads, Silent())
    local = {p.relative_to(here.out).as_posix(): p.read_bytes() for p in here.out.rglob("*") if p.is_file()}
    remote = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    kept_here = ("work/journal", "work/progress", "work/run.lock")
    assert remote == {name: data for name, data in local.items() if not name.startswith(kept_here)}
    assert (local_side(root / "work") / "journal.db").exists()
    assert pipeline.open_dataset(str(root)).to_table() == pipeline.open_dataset(here.out).to_table()
    assert curate(there, in_threads, Silent()).already_done
    # A republication sets aside what changed, for those who read it.
    before = pipeline.open_dataset(str(root))
    curate(settings(output__dir=str(root), filter__max_distance=0.15), in_threads, Silent())
    assert len(before.to_table()) == len(before) > len(pipeline.open_dataset(str(root)))


@pytest.mark.parametrize("root", ["memory"], indirect=True)
def test_a_lost_journal_is_told(root: RemotePath, settings: Settings, tmp_path: Path, monkeypatch: Any) -> None:
    curate(settings(output__dir=str(root)), in_threads, Silent())
    monkeypatch.setenv("FIGA_STATE", str(tmp_path / "other"))
    reporter = Silent()
    curate(settings(output__dir=str(root), source__limit=3), in_threads, reporter)
    assert any("is not on this machine" in warning for warning in reporter.warnings)


def test_one_run_at_a_time(root: RemotePath, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    warnings: list[str] = []
    lock = root / "work" / "run.owner"
    with run_lock(root, warnings.append):
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"), run_lock(root, warnings.append):
            pass
        # Another machine has another state folder; here the process is the same, and alive.
        monkeypatch.setenv("FIGA_STATE", str(tmp_path / "other"))
        with pytest.raises(StorageError, match=f"delete {lock}"), run_lock(root, warnings.append):
            pass
        assert lock.exists()
    assert not lock.exists() and not warnings
    dead = subprocess.Popen(["true"])
    dead.wait()
    put(lock, f"process {dead.pid} on {socket.gethostname()}\nx\n".encode())
    with run_lock(root, warnings.append):
        pass
    assert len(warnings) == 1 and f"taking over {root} from process {dead.pid}" in warnings[0]
    put(lock, f"process {dead.pid} on elsewhere\nx\n".encode())
    with pytest.raises(StorageError, match=f"process {dead.pid} on elsewhere"), run_lock(root, warnings.append):
        pass
    assert lock.exists()


def test_nobody_elses_manifest_is_written_over(root: RemotePath) -> None:
    with run_lock(root, print):
        put(root / "manifest.json", b"{}")
        with pytest.raises(StorageError, match="another run has published here"):
            manifest.write(root, {"a": 1})
        assert (root / "manifest.json").read_bytes() == b"{}"
    (root / "manifest.json").unlink()
    put(root / "manifest.json", b'{"format": "figa-pipeline", "schema_version": "1.0"}')
    with run_lock(root, print):
        manifest.write(root, {"a": 1})
        manifest.write(root, {"a": 2})
        (root / "manifest.json").unlink()
        put(root / "manifest.json", b"{}")
        with pytest.raises(StorageError, match="another run has published here"):
            manifest.write(root, {"a": 3})
    assert not (root / "work" / "run.owner").exists()


def test_what_a_store_refuses_ends_a_run_before_any_call(bucket: str, settings: Settings, tmp_path: Path) -> None:
    server = settings.server  # type: ignore[attr-defined]
    missing = settings(output__dir="s3://no-such-bucket/x")
    with pytest.raises(UsageError, match=r"s3://no-such-bucket/x: can't be used .*bucket") as caught:
        curate(missing, in_threads, Silent())
    assert "\n" not in str(caught.value)
    environment = child_environment(
        FIGA_STATE=str(tmp_path), AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1"
    )
    command = [sys.executable, "-m", "pipeline", "build", "--prefect", "off"]
    command += as_arguments(settings(output__dir=f"{bucket}/x"))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f"error: output folder {bucket}/x: can't be used"), done
    assert len(done.stderr.splitlines()) == 1 and "testing-secret" not in done.stderr
    assert server.completed == 0


def test_a_store_that_fails_is_not_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TimeoutError("no answer")

    root = location("memory://failing")
    with pytest.raises(StorageError, match="can't be read: no answer") as caught, run_lock(root, print):
        monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", broken)
        stage_files.inspect(root / "work", "sample", 0)
    # Not an address that was wrong from the start.
    assert caught.value.exit_code == 1
    with pytest.raises(StoreUnreachable) as caught:
        pipeline.open_dataset(root)
    assert caught.value.exit_code == 2


def test_without_the_package_that_knows_a_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r"pip install -e '\.\[s3\]'"):
        location("s3://other-bucket/x").exists()


def test_reading_goes_on_when_a_publication_moves_the_file(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1 << 16)
    data, path, aside = os.urandom(1 << 20), location(f"{bucket}/moved/x"), location(f"{bucket}/moved/aside/x")
    put(path, data)
    with path.open("rb", aside) as file, path.open("rb") as lost:  # type: ignore[call-overload]
        first = file.read(100_000)
        lost.read(10)
        path.replace(aside)
        assert first + file.read() == data
        with pytest.raises(FileNotFoundError):
            lost.read()


def test_the_other_commands_take_addresses(settings: Settings, tmp_path: Path) -> None:

    root = f"memory://{tmp_path.name}"
    curate(settings(output__dir=f"{root}/a"), in_threads, Silent())
    shown = (location(f"{root}/a") / "report.html").read_bytes()
    assert main(["relabel", f"{root}/a", "--alpha", "2", "--out", f"{root}/b"]) == 0
    assert main(["export", f"{root}/a", "--format", "dpo", "--out", f"{root}/c"]) == 0
    curate(settings(output__dir=f"{root}/d", policy__seed=1), in_threads, Silent())
    assert main(["merge", f"{root}/a", f"{root}/d", "--out", f"{root}/e"]) == 0
    assert main(["report", f"{root}/a"]) == main(["status", f"{root}/a"]) == 0
    assert (location(f"{root}/a") / "report.html").read_bytes() == shown
    for name in "abe":
        assert main(["verify", f"{root}/{name}"]) == 0
    assert len(pipeline.open_dataset(f"{root}/b")) == len(pipeline.open_dataset(f"{root}/a"))
    assert main(["push", f"{root}/a", "owner/name"]) == 2
