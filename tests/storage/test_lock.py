"""One run at a time in an output folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import CurationError, StorageError, UsageError
from pipeline.storage.lock import run_lock
from tests.conftest import ROOT, child_environment

HOLDING = """
import sys, time
from pathlib import Path
from pipeline.storage.lock import run_lock
with run_lock(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=child_environment(), **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def take(out: Path) -> list[str]:
    warnings: list[str] = []
    with run_lock(out, warnings.append):
        assert (out / "work" / "run.owner").exists()
    return warnings


def test_a_second_run_is_refused_with_the_firsts_process(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        take(tmp_path)
    assert f"in use by process {holder.pid} on " in str(caught.value)
    assert "--out" in str(caught.value)
    assert take(tmp_path / "another") == []


def test_when_the_first_has_ended_well_nothing_is_said(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.communicate("\n", timeout=20)
    assert holder.returncode == 0
    assert take(tmp_path) == []


def test_a_run_that_was_killed_is_taken_over_with_a_warning(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(20)
    (warning,) = take(tmp_path)
    assert f"process {holder.pid} on " in warning
    assert "\n" not in warning
    assert take(tmp_path) == []


def test_the_lock_is_free_again_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path, print):
        raise ZeroDivisionError
    assert take(tmp_path) == []


def test_within_one_process_too_there_is_one_run(tmp_path: Path) -> None:
    with run_lock(tmp_path, print), pytest.raises(StorageError, match="in use by process"):
        take(tmp_path)


@pytest.mark.parametrize("where", ["file", "file/inner"])
def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        take(tmp_path / where)
    assert f"output folder {tmp_path / where}: can't be written" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_read_only_folder_is_refused_before_anything_is_paid() -> None:
    """/proc takes no files, not even root's."""
    with pytest.raises(UsageError, match="can't be written"):
        take(Path("/proc/figa"))


def test_an_owner_that_cannot_be_noted_is_no_traceback(tmp_path: Path) -> None:
    take(tmp_path)
    (tmp_path / "work" / "run.owner").mkdir()
    with pytest.raises(CurationError, match="can't be written"):
        take(tmp_path)
