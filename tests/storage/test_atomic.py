"""Files appear whole or not at all, whatever the disk says."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StorageError
from pipeline.storage.atomic import TEMPORARY, replacing, write_text
from pipeline.storage.ours import remove_temporaries
from tests.conftest import ROOT, child_environment

CODES = [errno.ENOSPC, errno.EIO, errno.EACCES]


def refusing(code: int) -> Callable[..., Any]:
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_content_takes_the_place_of_old(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "one")
    write_text(path, "twó")
    assert path.read_bytes() == "twó".encode()
    assert names(path.parent) == ["file.txt"]


def test_while_it_is_written_the_old_content_stands(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new, and longer")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
    assert path.read_text() == "new, and longer"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("old", ["old", None])
def test_a_disk_that_refuses_is_one_error_and_leaves_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, old: str | None
) -> None:
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)
    if call != "write":
        monkeypatch.setattr(os, call, refusing(code))
    with pytest.raises(StorageError) as caught, replacing(path) as temporary:
        temporary.write_text("half of the ne")
        if call == "write":
            refusing(code)()
    monkeypatch.undo()
    assert str(caught.value) == f"{path}: can't be written: {os.strerror(code)}; free the cause and run again"
    assert names(tmp_path) == (["file.txt"] if old else [])
    assert not old or path.read_text() == old


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/inner.txt: can't be written"):
        write_text(tmp_path / "file" / "inner.txt", "x")


def test_an_error_of_ones_own_passes_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError("mine")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_bytes_are_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def told_fsync(descriptor: int) -> None:
        order.append(
            "fsync " + Path(f"/proc/self/fd/{descriptor}").resolve().name.removeprefix(TEMPORARY).split("-")[-1]
        )
        fsync(descriptor)

    def told_replace(source: Any, target: Any) -> None:
        order.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(os, "replace", told_replace)
    folder = tmp_path / "folder"
    write_text(folder / "file.txt", "x")
    assert order == ["fsync file.txt", "replace", "fsync folder"]


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.storage.atomic import replacing
setattr(os, sys.argv[2], lambda *a: os.kill(os.getpid(), signal.SIGKILL))
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("new")
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_after_kill_9_the_old_content_stands_and_the_next_run_tidies_up(tmp_path: Path, call: str) -> None:
    path = tmp_path / "work" / "plan.json"
    write_text(path, "old")
    command = [sys.executable, "-c", KILLED, str(path), call]
    assert subprocess.run(command, cwd=ROOT, env=child_environment(), check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(names(path.parent)) == 2
    remove_temporaries(tmp_path)
    assert names(path.parent) == ["plan.json"]
