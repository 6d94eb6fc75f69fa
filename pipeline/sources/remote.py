"""Files behind a URL (`s3://`, `gs://`, `https://` …), through fsspec. Nothing is downloaded whole; reading is by blocks.

An address is recorded in the manifest: a query string, which may be a signature, is used but not shown.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import InputError
from pipeline.storage.filesystems import Stream, attempt, content_tag, filesystem, holds_secrets
from pipeline.text import shown

_WEB = ("http", "https")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file; like a Path, it has a name and opens.

    size: bytes, -1 if unknown. tag: the store's own hash or version of the content, if it has one.
    """

    url: str
    size: int = -1
    tag: str | None = None

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(query="", fragment="")) if parts.scheme in _WEB else self.url

    @property
    def name(self) -> str:
        return PurePosixPath(str(self)).name

    def open(self, mode: str = "rb", buffering: int = 1 << 20) -> io.BufferedReader:
        """The bytes. Whatever the protocol's library raises, here and later, is an OSError."""
        fs, path = attempt(lambda: filesystem(self.url))
        return io.BufferedReader(Stream(attempt(lambda: fs.open(path, mode))), buffering)


def find(url: str) -> tuple[RemoteFile, dict[str, RemoteFile]]:
    """What a URL means: the place itself, and every file there by its name below it; a glob's matches likewise.

    InputError in one line for what can't be reached, isn't there or may not be given this way.
    """
    place = RemoteFile(url)
    if holds_secrets(url):
        raise InputError("an input's URL may hold no user name, password or '::'; give credentials in the environment")
    try:
        return place, attempt(lambda: _list(url))
    except FileNotFoundError as error:
        no_host = " (or nothing answers at that address)" if urlsplit(url).scheme in _WEB else ""
        raise InputError(f"{shown(place)}: no such file or folder{no_host}") from error
    except OSError as error:
        raise InputError(f"{shown(place)}: can't be reached ({shown(error)})") from error


def _list(url: str) -> dict[str, RemoteFile]:
    fs, root = filesystem(url)
    if urlsplit(url).scheme in _WEB:
        # Listing a web page means following its links, wherever they lead.
        return {RemoteFile(url).name: _file(url, fs.info(root))}
    if any(char in root for char in "*?["):
        base = re.split(r"[*?\[]", root, maxsplit=1)[0].rpartition("/")[0]
        entries = fs.glob(root, detail=True)
    elif fs.isfile(root):
        base, entries = root.rpartition("/")[0], {root: fs.info(root)}
    else:
        base, entries = root.rstrip("/"), fs.find(root, detail=True)
    files = {name: info for name, info in sorted(entries.items()) if info.get("type") == "file"}
    if not files:
        raise FileNotFoundError(url)
    return {name.removeprefix(base).lstrip("/"): _file(fs.unstrip_protocol(name), files[name]) for name in files}


def _file(url: str, info: dict[str, Any]) -> RemoteFile:
    size = info.get("size")
    return RemoteFile(url, -1 if size is None else int(size), content_tag(info))
