"""manifest.json: written last. A data set exists when its manifest does, and consists of the files that it names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError
from pipeline.schema import digest
from pipeline.storage.atomic import write_text
from pipeline.storage.claim import replace_manifest
from pipeline.storage.remote import RemotePath

NAME = "manifest.json"


def file_entry(root: Path, path: Path, rows: int) -> dict[str, Any]:
    """What the manifest says of one file: path relative to the folder, rows, bytes, sha256."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": path.relative_to(root).as_posix(), "rows": rows, "bytes": path.stat().st_size, "sha256": sha256}


def write(out: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest with a digest of itself, by which an edited one is told; returns it.

    In a remote folder only where no other run has published since this one took the lock; else StorageError.
    """
    sealed = {**content, "digest": digest_of(content)}
    text = json.dumps(sealed, indent=2, ensure_ascii=False) + "\n"
    path = out / NAME
    if isinstance(path, RemotePath):
        replace_manifest(path, text.encode())
    else:
        write_text(path, text)
    return sealed


def digest_of(content: dict[str, Any]) -> str:
    """sha256 over all that a manifest says but its own `digest`."""
    return digest({key: value for key, value in content.items() if key != "digest"})


def load(out: Path, *, sealed: bool = True) -> dict[str, Any] | None:
    """The manifest, None when there is none. sealed False: also one that was edited.

    Raises StorageError when it isn't a JSON object, or not the one that was written.
    """
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
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(
            f"{path}: not readable as a manifest ({error}); run the same command again to publish anew"
        ) from error


def standing(out: Path, run_digest: str) -> dict[str, Any] | None:
    """The manifest if it is of this very run and its files are there, at their sizes; else None."""
    try:
        content = load(out)
    except StorageError:
        return None
    if content is None or content.get("run_digest") != run_digest or content.get("unanswered"):
        return None
    try:
        for entry in [*content["files"], *content["rejected_files"]]:
            path = out / entry["path"]
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                return None
    except (KeyError, TypeError):
        return None
    return content
