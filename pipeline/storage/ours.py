"""Which files in an output folder are this program's. Nothing else in it is ever written over, moved or deleted."""

import json
import re
import time
from contextlib import suppress
from pathlib import Path

from pipeline import __version__, schema
from pipeline.errors import UsageError
from pipeline.storage.atomic import TEMPORARY, UPLOADS, remove
from pipeline.storage.location import MANIFEST, journal_of, local_side, state_folder
from pipeline.storage.remote import RemotePath

PUBLISHED = re.compile(rf"(train-\d{{5}}-of-\d{{5}}|{'|'.join((*schema.STAGES, 'merge'))})(-[0-9a-f]{{8}})?\.parquet")
_SHARD = re.compile(r"\d{5,}(\.rejects)?\.(arrow|json)")
# The folders that a run writes, with the names of its files in each.
_WRITTEN = {
    "": re.compile(r"manifest\.json|README\.md|report\.html|croissant\.json"),
    "data": PUBLISHED,
    "rejected": PUBLISHED,
    "work": re.compile(r"(plan|run|parameters|paid)\.json|run\.alive"),
    **{f"work/{stage}": _SHARD for stage in schema.STAGES},
}
_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY)}\d+-(.+)")
# What systems put into empty folders.
_NOBODYS = {".DS_Store", "Thumbs.db", "desktop.ini", "lost+found", ".gitkeep", ".keep"}
_ABANDONED_S = 86_400


def check_ours(out: Path) -> None:
    """Refuse an output folder that is somebody else's, before anything is created in it. Raises UsageError.

    A folder with a manifest of this program or with traces of a run is this program's, an empty one is free.
    """
    if not isinstance(out, RemotePath):
        place = out.resolve()
        if place in (Path(place.anchor), Path.home().resolve()):
            raise UsageError(
                f"output folder {out}: is {place}, which holds more than a data set; name a folder below it"
            )
    work = out / "work"
    traces = (work / "plan.json", work / "run.owner", local_side(work) / "run.lock", journal_of(out))
    if _has_manifest(out / MANIFEST) or any(path.exists() for path in traces):
        return
    if (out / ".git").exists():
        raise UsageError(f"output folder {out}: is the root of a repository; name a folder below it")
    for path in sorted(out.glob("*")):
        beside = [path]
        if path.name in ("data", "rejected", "work") and path.is_dir():
            beside = [
                inner for inner in sorted(path.glob("*")) if path.name == "work" or not _is_ours(inner.name, PUBLISHED)
            ]
        if foreign := [one for one in beside if one.name not in _NOBODYS]:
            what = "is not this program's; name an empty folder, or a new one"
            raise UsageError(f"output folder {out}: {foreign[0]} {what}")


def check_empty(out: Path, remedy: str = "name a new one") -> None:
    """Refuse a file, and a folder with more than systems and killed commands leave in it. Raises UsageError."""
    if out.exists() and not (
        out.is_dir() and all(path.name in _NOBODYS or _TEMPORARY.fullmatch(path.name) for path in out.iterdir())
    ):
        raise UsageError(f"--out {out}: exists and is not an empty folder; {remedy}")


def _has_manifest(path: Path) -> bool:
    """Whether there is one that can be read. Raises UsageError for one of another program or schema: it would be lost."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    version = str(content.get("schema_version")) if isinstance(content, dict) else ""
    if not isinstance(content, dict) or content.get("format") != "figa-pipeline":
        raise UsageError(f"{path}: is no manifest of this program, and would be lost; choose another --out")
    if version.partition(".")[0] != schema.SCHEMA_VERSION.partition(".")[0]:
        what = f"has schema version {version}, which figa-pipeline {__version__} can't read, and would be lost"
        raise UsageError(f"{path}: {what}; choose another --out")
    return True


def _is_ours(name: str, names: re.Pattern[str]) -> bool:
    temporary = _TEMPORARY.fullmatch(name)
    return bool(names.fullmatch(temporary[1] if temporary else name))


def remove_temporaries(out: Path) -> None:
    """Delete the temporary files that killed runs left: files with names of ours, in the very folders that runs write."""
    if isinstance(out, RemotePath):
        # All runs on this machine share this folder: only files a day old are certainly abandoned.
        for leftover in (state_folder() / UPLOADS).glob(f"{TEMPORARY}*"):
            with suppress(OSError):
                if _TEMPORARY.fullmatch(leftover.name) and time.time() - leftover.stat().st_mtime > _ABANDONED_S:
                    leftover.unlink()
        return
    for folder, names in _WRITTEN.items():
        for leftover in (out / folder).glob(f"{TEMPORARY}*"):
            if _is_ours(leftover.name, names) and leftover.is_file() and not leftover.is_symlink():
                remove(leftover)
