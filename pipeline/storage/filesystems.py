"""What is behind a URL (`s3://`, `gs://`, `https://` …), through fsspec, with errors that a person can read.

Credentials come from where the protocol's library takes them (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS …), never from
the URL, because URLs are shown and recorded.
"""

import io
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pipeline.errors import InputError
from pipeline.text import describe_error, one_line

T = TypeVar("T")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What stores call the hash, or the version, of an object's content.
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c")


def is_url(text: str) -> bool:
    return _URL.match(text) is not None


def holds_secrets(url: str) -> bool:
    """Whether a URL contains what must not be shown: a user name, a password, or a chain of protocols."""
    return "@" in urlsplit(url).netloc or "::" in url


def content_tag(info: dict[str, Any]) -> str | None:
    """The store's own hash or version of an object, from fsspec's info of it; None when it has none."""
    return next((str(info[name]) for name in _TAGS if info.get(name)), None)


def filesystem(url: str, **options: Any) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the URL's path there. Raises InputError in one line when there is none."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        protocol = urlsplit(url).scheme
        extra = "; pip install -e '.[s3]'" if protocol in ("s3", "s3a") else ""
        raise InputError(f"{protocol}:// needs another package: {one_line(error)}{extra}") from error
    except ValueError as error:
        raise InputError(f"{url.partition('?')[0]}: {one_line(error)}") from error
    return fs, path


def attempt(work: Callable[[], T]) -> T:
    """Run `work`; errors of the libraries behind fsspec, which differ between versions, become OSError."""
    try:
        return work()
    except (OSError, InputError):
        raise
    except Exception as error:
        raise OSError(describe_error(error)) from error


class Stream(io.RawIOBase):
    """A remote file as raw bytes. attempt: runs each read and translates its errors."""

    def __init__(self, file: Any, attempt: Callable[[Callable[[], Any]], Any] = attempt) -> None:
        self._file = file
        self._attempt = attempt

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        data = self._attempt(lambda: self._file.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._attempt(lambda: self._file.seek(offset, whence)))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
