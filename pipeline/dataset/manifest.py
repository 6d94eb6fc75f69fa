"""manifest.json: written last. A data set exists when its manifest does, and consists of the files that it names."""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError
from pipeline.schema import digest
from pipeline.storage.location import MANIFEST
from pipeline.storage.lock import write_manifest

NAME = MANIFEST


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the manifest says of one file. name: its path relative to the folder."""

    path: Path
    name: str
    rows: int
    bytes: int
    sha256: str


def file_entry(root: Path, path: Path, rows: int) -> dict[str, Any]:
    """A file's entry in the manifest: path relative to the folder, rows, bytes, sha256."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": path.relative_to(root).as_posix(), "rows": rows, "bytes": path.stat().st_size, "sha256": sha256}


def documents(root: Path) -> list[dict[str, Any]]:
    """The entries of card, report and Croissant, which are checked and sent as the data is; 0 rows."""
    names = ("README.md", "report.html", "croissant.json")
    return [file_entry(root, root / name, 0) for name in names if (root / name).is_file()]


def file_entries(root: Path, content: dict[str, Any], key: str = "files") -> list[FileEntry]:
    """The files that the manifest names under `key`. Raises StorageError when that isn't a list of files in the folder."""
    entries = []
    try:
        # Earlier versions' manifests don't name card and report.
        for entry in content.get(key, ()) if key == "documents" else content[key]:
            name, path = entry["path"], root / entry["path"]
            if not path.resolve().is_relative_to(root.resolve()):
                raise ValueError(f"{name!r} is outside the folder")
            entries.append(FileEntry(path, name, int(entry["rows"]), int(entry["bytes"]), str(entry["sha256"])))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{root / NAME}: its list of {key.replace('_', ' ')} can't be read ({error!r})") from None
    return entries


def write(out: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest with a digest of itself, which reveals edits; returns it. Raises as `write_manifest` does."""
    content = {**content, "digest": digest_of(content)}
    write_manifest(out, as_text(content))
    return content


def as_text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def digest_of(content: dict[str, Any]) -> str:
    """sha256 over everything in a manifest but its own `digest`."""
    return digest({key: value for key, value in content.items() if key != "digest"})


def lineage(content: dict[str, Any]) -> dict[str, Any]:
    """What identifies a data set in whatever folder: the manifest's digest covers the hashes of all its files."""
    return {"manifest": digest_of(content)} | {
        name: content[name] for name in ("run_digest", "schema_version", "version")
    }


def load(out: Path, *, sealed: bool = True) -> dict[str, Any] | None:
    """The manifest, None when there is none. sealed False: also an edited one. Raises StorageError for a damaged one."""
    path = out / NAME
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"an object is expected, got {type(content).__name__}")
        if sealed and content.get("digest", "") not in ("", digest_of(content)):
            raise ValueError("it was edited or damaged: its digest is not that of its content")
        return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise StorageError(f"{path}: can't be read ({error.strerror}); check who may read it") from error
    except (OSError, ValueError, RecursionError) as error:
        what = f"not readable as a manifest ({error}); run the command that made the data set, which publishes again"
        raise StorageError(f"{path}: {what}") from error


def load_or_none(out: Path) -> dict[str, Any] | None:
    """The manifest; None when there is none, or a damaged one."""
    with suppress(StorageError):
        return load(out)
    return None


def find_current(out: Path, run_digest: str) -> dict[str, Any] | None:
    """The manifest if it is of this very run and complete, and its files are there at their sizes; else None."""
    try:
        content = load(out)
        if content is None or content.get("run_digest") != run_digest or content.get("unanswered"):
            return None
        entries = [*file_entries(out, content), *file_entries(out, content, "rejected_files")]
        beside = content.get("documents") in (None, documents(out))
    except (StorageError, OSError):
        return None
    same = all(entry.path.is_file() and entry.path.stat().st_size == entry.bytes for entry in entries)
    return content if same and beside else None
