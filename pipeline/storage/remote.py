"""Stores behind a URL (`s3://`, `gs://`, `https://` …), through fsspec, with errors that a person can read.

Credentials come from where the protocol's library takes them (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS …), never from
the URL, because URLs are shown and recorded.

RemotePath is the part of pathlib.Path that the pipeline uses. It replaces universal_pathlib for three reasons. Every failure
but "not there" is StoreUnreachable: a dropped connection must end a run, and never pass for a damaged file that can be
rebuilt. Listings are never cached, because others write too. And an object can be put on the condition that nobody else
changed it. This holds for S3 and for stores with its consistency. A file system without atomic puts (sftp, …) can leave a
torn file, which its hash reveals. A killed upload of over 100 MB leaves invisible parts: let the bucket expire them.
"""

from __future__ import annotations

import functools
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pipeline.errors import InputError, StoreUnreachable
from pipeline.text import describe_error, one_line

T = TypeVar("T")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What stores call the hash, or the version, of an object's content.
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c")
# Read ahead of a reader.
_BLOCK = 4 << 20
# At run time not a Path: a method that isn't defined here must fail, and not use the local disk.
if TYPE_CHECKING:
    from pathlib import Path as _Base
else:
    from pathlib import PurePosixPath as _Base


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


class RemotePath(_Base):
    """One place behind a URL, as a Path. Methods raise FileNotFoundError, StoreUnreachable for all other errors."""

    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is not on this machine's disk: open it")

    def open(self, mode: str = "rb", aside: Any = None, *_: object) -> Any:
        """Open for reading, by blocks. aside: where the object may be moved meanwhile; reading continues there."""
        if mode != "rb":
            raise ValueError(f"{self}: mode {mode!r}; objects are read as bytes, and put whole")
        return io.BufferedReader(_Object(self, aside if isinstance(aside, RemotePath) else None), 1 << 18)

    def read_bytes(self) -> bytes:
        return bytes(self._do("read", lambda fs, path: fs.cat_file(path)))

    def read_text(self, encoding: str | None = "utf-8", errors: str | None = None, *_: object) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def upload(self, file: Path) -> None:
        """Put a local file here, whole or not at all."""
        self._do("written", lambda fs, path: fs.put_file(str(file), path))

    def put(self, data: bytes, *, over: str | None) -> str | None:
        """Put `data` here if the object still has version `over` (None: if there is no object); returns the new version.

        Raises FileExistsError otherwise. In a store without conditional overwrites (S3 has them) another writer can come
        between the check and the put.
        """
        if over is None:
            condition = {"mode": "create"}
        elif self.parts[0] in ("s3:", "s3a:"):
            condition = {"IfMatch": over}
        elif self.version() == over:
            condition = {}
        else:
            raise FileExistsError(str(self))
        try:
            self._do("written", lambda fs, path: fs.pipe_file(path, data, **condition))
        except FileExistsError:
            # When the response to a first attempt is lost, the library's second attempt fails although the first succeeded.
            if self.read_bytes() != data:
                raise
        return self.version()

    def version(self) -> str | None:
        """Differs between an object and one that replaces it; None when there is none."""
        info = self._info()
        return None if info is None else content_tag(info) or repr(sorted(info.items()))

    def exists(self, **_: object) -> bool:
        return self._info() is not None

    def is_file(self, **_: object) -> bool:
        return (self._info() or {}).get("type") == "file"

    def is_dir(self, **_: object) -> bool:
        return (self._info() or {}).get("type") == "directory"

    def stat(self, **_: object) -> os.stat_result:
        """Only st_size is set; the other fields are 0."""
        info = self._info()
        if info is None:
            raise FileNotFoundError(str(self))
        return os.stat_result((0, 0, 0, 0, 0, 0, int(info["size"]), 0, 0, 0))

    def glob(self, pattern: str, **_: object) -> Iterator[RemotePath]:  # type: ignore[override]
        try:
            paths = self._do("listed", lambda fs, path: list(map(fs.unstrip_protocol, fs.glob(f"{path}/{pattern}"))))
        except FileNotFoundError:
            return
        for path in paths:
            # Keep this path's spelling of the protocol: s3a:// is listed as s3://.
            yield RemotePath(self.parts[0] + "/" + path.partition("://")[2].lstrip("/"))

    def rglob(self, pattern: str, **_: object) -> Iterator[RemotePath]:  # type: ignore[override]
        return self.glob(f"**/{pattern}")

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._do("removed", lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self, target: Any) -> RemotePath:
        """Copy, then delete: a process that stops in between leaves both."""
        self._do("moved", lambda fs, path: (fs.cp_file(path, fs._strip_protocol(str(target))), fs.rm_file(path)))
        return RemotePath(target)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing to do: a folder exists when it contains an object."""

    def absolute(self) -> RemotePath:
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        return RemotePath(posixpath.normpath(PurePosixPath(*self.parts)))

    def _info(self) -> dict[str, Any] | None:
        try:
            return dict(self._do("read", lambda fs, path: fs.info(path)))
        except FileNotFoundError:
            return None

    def _do(self, what: str, work: Callable[[Any, str], T]) -> T:
        """Every access to a store goes through here, where its errors are translated."""
        try:
            fs = _filesystem("/".join(self.parts[:2]), os.getpid())
            return attempt(lambda: work(fs, fs._strip_protocol(str(self))))
        except FileNotFoundError:
            raise
        except OSError as error:
            if isinstance(error, FileExistsError) or _condition_failed(error):
                raise FileExistsError(str(self)) from error
            raise StoreUnreachable(
                f"{self}: can't be {what}: {one_line(error)}; check the address, the credentials and the network, "
                "and run again"
            ) from error


class _Object(Stream):
    """An object's bytes. When it is moved while it is read, reading continues in the new place."""

    def __init__(self, path: RemotePath, aside: RemotePath | None) -> None:
        self._aside = aside
        self._open(path)

    def _open(self, path: RemotePath) -> None:
        file = path._do("read", lambda fs, name: fs.open(name, "rb", block_size=_BLOCK))
        super().__init__(file, lambda work: path._do("read", lambda fs, name: work()))

    def readinto(self, buffer: Any) -> int:
        try:
            return super().readinto(buffer)
        except FileNotFoundError:
            if self._aside is None:
                raise
            position, moved, self._aside = self.tell(), self._aside, None
            self._open(moved)
            self.seek(position)
            return super().readinto(buffer)


@functools.cache
def _filesystem(root: str, process: int) -> Any:
    """One instance for all threads of a process, without a cache of listings. A forked process creates its own."""
    fs, _ = filesystem(root.replace(":/", "://", 1), skip_instance_cache=True)
    fs.dircache.use_listings_cache = False
    return fs


def _condition_failed(error: BaseException | None) -> bool:
    """Whether a store refused a put because its condition didn't hold."""
    while error is not None:
        response = getattr(error, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        if code in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
            return True
        error = error.__cause__
    return False
