"""What `--out` may name: a folder on this machine, or one behind a URL (`s3://bucket/prefix`, `gs://`, `memory://` …).

`location` returns a Path or a RemotePath, and all code works with either. Some files need a disk and stay on this machine
even when the output folder is remote: the journal of calls and the ledger of batches (SQLite), the progress, the lock, and
files that are being uploaded. `local_side` says where:

    $FIGA_STATE, else the user's state folder for this program (Linux: ~/.local/state/figa-pipeline)
    └─ s3-bucket-prefix-1a2b3c4d/      the journal of s3://bucket/prefix, and whatever else in work/ is no stage file

Losing that folder loses no data, but the responses for unfinished shards are paid again.
The manifest counts the calls and the money of the machine that publishes.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.storage.remote import RemotePath, holds_secrets, is_url

MANIFEST = "manifest.json"
_LONGEST_NAME, _LONGEST_PATH = 255, 4000


def location(text: str | Path) -> Path:
    """The folder that a path or URL names. Raises ConfigError for one that can't be an output folder."""
    if not isinstance(text, str):
        return text
    if not text.strip() or "\0" in text:
        raise ConfigError(f"output folder {text!r}: expected a folder's path, or the URL of a store")
    if len(text) > _LONGEST_PATH or any(len(os.fsencode(part)) > _LONGEST_NAME for part in text.split("/")):
        raise ConfigError(
            f"output folder {text[:40]}…: a name may have {_LONGEST_NAME} bytes, and a path {_LONGEST_PATH}"
        )
    if not is_url(text):
        try:
            return Path(text).expanduser()
        except RuntimeError as error:
            raise ConfigError(f"output folder {text}: {error}") from None
    if holds_secrets(text) or any(char in text for char in "?#*["):
        what = "may hold no user name, password, query, wildcard or '::'; give credentials in the environment"
        raise ConfigError(f"an output folder's URL {what}")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ConfigError(f"output folder {text}: {error}") from None
    if parts.scheme in ("file", "local"):
        return Path(text.partition("://")[2])
    if parts.scheme in ("http", "https") or not parts.netloc:
        raise ConfigError(f"output folder {text}: expected a store that can be written, such as s3://bucket/prefix")
    return RemotePath(text)


def local_side(work: Path) -> Path:
    """Where on this machine a work folder's journal, progress and lock are: in it, unless it is remote."""
    if not isinstance(work, RemotePath):
        return work
    url = str(work.parent)
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", url)[:80].strip("-")
    return state_folder() / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def journal_of(out: Path) -> Path:
    """Where the journal of calls of an output folder is, or would be."""
    return local_side(out / "work") / "journal.db"


def state_folder() -> Path:
    """This program's files outside of output folders; in `uploads/` those that are being sent to a store."""
    import platformdirs

    return Path(os.environ.get("FIGA_STATE") or platformdirs.user_state_dir("figa-pipeline")).expanduser().absolute()
