"""What `--out` may name: a folder on this machine, or one behind a URL (`s3://bucket/prefix`, `gs://`, `memory://` …).

`location` makes of it a Path or a RemotePath, and all code is written for either: an object is put whole or not at all, so
that what is a rename elsewhere is one upload here (atomic.py). What needs a disk stays on this machine: the journal of calls
and the ledger of batches (SQLite), progress, a lock, files on their way up. `local_side` says where:

    $FIGA_STATE, else the user's state folder for this program (Linux: ~/.local/state/figa-pipeline)
    └─ s3-bucket-prefix-1a2b3c4d/      the journal of s3://bucket/prefix, and what else is in work/ and no stage file

Losing that folder loses no data, but the answers of unfinished shards are paid again, and `--budget` counts from nothing.
Workers on other machines keep a journal each; the manifest counts the calls and the money of the one that publishes.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.storage.filesystems import holds_secrets, is_url
from pipeline.storage.remote import RemotePath


def location(text: str | Path) -> Path:
    """The folder that a path or URL names. Raises ConfigError for one that can't be an output folder."""
    if not isinstance(text, str) or not is_url(text):
        try:  # A configuration file has no shell that would do this.
            return Path(text).expanduser() if isinstance(text, str) else text
        except RuntimeError as error:
            raise ConfigError(f"output folder {text}: {error}") from None
    if holds_secrets(text) or any(char in text for char in "?#*["):
        raise ConfigError(
            "an output folder's URL may hold no user name, password, query, wildcard or '::'; give credentials in the "
            "environment, as for the protocol's own tools"
        )
    parts = urlsplit(text)
    if parts.scheme in ("file", "local"):
        return Path(text.partition("://")[2])
    if parts.scheme in ("http", "https") or not parts.netloc:
        raise ConfigError(f"output folder {text}: expected a store that can be written, such as s3://bucket/prefix")
    return RemotePath(text)


def argument(text: str) -> Path:
    """`location` as the type of a command line's argument."""
    from argparse import ArgumentTypeError

    try:
        return location(text)
    except ConfigError as error:
        raise ArgumentTypeError(str(error)) from None


def local_argument(text: str) -> Path:
    """The type of an argument that has to be a folder on this machine."""
    from argparse import ArgumentTypeError

    path = argument(text)
    if isinstance(path, RemotePath):
        raise ArgumentTypeError(f"{text}: here a folder on this machine is needed")
    return path


def local_side(work: Path) -> Path:
    """Where on this machine a work folder's journal, progress and lock are: in it, unless it is remote."""
    if not isinstance(work, RemotePath):
        return work
    url = str(work.parent)
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", url)[:80].strip("-")
    return _state() / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def journal_of(out: Path) -> Path:
    """Where the journal of calls of an output folder is, or would be."""
    return local_side(out / "work") / "journal.db"


def scratch() -> Path:
    """The folder of files on their way up. What a killed process leaves there is removed a day later (atomic.py)."""
    return _state() / "uploads"


def checks() -> Path:
    """The folder of what checking reward models has asked judges."""
    return _state() / "checks"


def parquet(path: Path, aside: Path | None = None) -> Any:
    """What pyarrow reads a file from: a local one by its name. aside: where it may be moved while it is being read."""
    return path.open("rb", aside) if isinstance(path, RemotePath) else path


def _state() -> Path:
    import platformdirs

    return Path(os.environ.get("FIGA_STATE") or platformdirs.user_state_dir("figa-pipeline")).expanduser().absolute()
