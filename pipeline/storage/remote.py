"""A path behind a URL, through fsspec: what the pipeline does with a pathlib.Path, done in a store.

Small and of our own, and not universal_pathlib's UPath, which opens and lists alike, for three things of which a library
knows nothing: every failure but "not there" is StoreUnreachable (a dropped connection must end a run, never pass for a
file that is damaged and can be made again), nothing is listed from memory while others write, and an object can be put on
the condition that no other came before it.

Promised by S3, and by stores with its consistency; a file system without whole puts (sftp, …) can leave a torn file, which
is told by its hash. An upload of over 100 MB that is killed leaves invisible parts: let the bucket expire them.
"""

from __future__ import annotations

import functools
import io
import os
import posixpath
from collections.abc import Callable, Generator, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import StoreUnreachable
from pipeline.storage.filesystems import TAGS, Stream, attempt, filesystem
from pipeline.text import one_line

T = TypeVar("T")
# Read ahead of a reader. Data sets are read through up to 64 open files.
_BLOCK = 4 << 20
# Only what is used of a Path exists. No method of one may find the local disk by accident.
if TYPE_CHECKING:
    from pathlib import Path as _Base
else:
    from pathlib import PurePosixPath as _Base


class RemotePath(_Base):
    """One place behind a URL; to type checkers, and to most code, a Path.

    Methods raise FileNotFoundError, and StoreUnreachable for everything else that a store can answer.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is not on this machine's disk: open it")

    def open(self, mode: str = "rb", aside: Any = None, *_: object) -> Any:
        """The bytes, to be read by blocks. aside: where the object may be moved meanwhile; reading goes on there."""
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
        """Put `data` here if what is here is still of version `over` (None: nothing); returns the new version.

        Raises FileExistsError when it isn't. Another writer can come between only where the store knows no conditions on
        an overwrite: S3 does.
        """
        condition = self._condition(over)
        try:
            self._do("written", lambda fs, path: fs.pipe_file(path, data, **condition))
        except FileExistsError:
            # A first try that got through without an answer makes the second one fail.
            if self.read_bytes() != data:
                raise
        return self.version()

    def _condition(self, over: str | None) -> dict[str, str]:
        if over is None:
            return {"mode": "create"}
        if self.parts[0] in ("s3:", "s3a:"):
            return {"IfMatch": over}
        if self.version() != over:
            raise FileExistsError(str(self))
        return {}

    def version(self) -> str | None:
        """What tells an object from one that replaces it; None when there is none."""
        info = self._info()
        if info is None:
            return None
        return next((str(info[name]) for name in TAGS if info.get(name)), None) or repr(sorted(info.items()))

    def exists(self, **_: object) -> bool:
        return self._info() is not None

    def is_file(self, **_: object) -> bool:
        return (self._info() or {}).get("type") == "file"

    def is_dir(self, **_: object) -> bool:
        return (self._info() or {}).get("type") == "directory"

    def stat(self, **_: object) -> os.stat_result:
        """Its size, and zeros."""
        info = self._info()
        if info is None:
            raise FileNotFoundError(str(self))
        return os.stat_result((0, 0, 0, 0, 0, 0, int(info["size"]), 0, 0, 0))

    def glob(self, pattern: str, **_: object) -> Iterator[RemotePath]:  # type: ignore[override]
        depth = len(PurePosixPath(pattern).parts)
        return (path for path in self._below(depth) if path.match(pattern) and len(self._rest(path)) == depth)

    def rglob(self, pattern: str, **_: object) -> Iterator[RemotePath]:  # type: ignore[override]
        return (path for path in self._below(None) if path != self and path.match(pattern))

    def iterdir(self) -> Generator[RemotePath, None, None]:
        yield from self._named(lambda fs, path: fs.ls(path, detail=False))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._do("removed", lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self, target: Any) -> RemotePath:
        """Copy, then delete: whoever stops in between leaves both."""
        self._do("moved", lambda fs, path: (fs.cp_file(path, target._path()), fs.rm_file(path)))
        return RemotePath(target)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there when something is in it."""

    def absolute(self) -> RemotePath:
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        return RemotePath(posixpath.normpath(PurePosixPath(*self.parts)))

    def _rest(self, path: RemotePath) -> tuple[str, ...]:
        return path.parts[len(self.parts) :]

    def _below(self, depth: int | None) -> Iterator[RemotePath]:
        return self._named(lambda fs, path: fs.find(path, maxdepth=depth, withdirs=True))

    def _named(self, listed: Callable[[Any, str], list[str]]) -> Iterator[RemotePath]:
        try:
            names = self._do("listed", lambda fs, path: [fs.unstrip_protocol(name) for name in listed(fs, path)])
        except FileNotFoundError:
            return
        for name in names:
            # Some name the protocol in another way.
            yield RemotePath(self.parts[0] + "/" + name.partition("://")[2].lstrip("/"))

    def _info(self) -> dict[str, Any] | None:
        try:
            return dict(self._do("read", lambda fs, path: fs.info(path)))
        except FileNotFoundError:
            return None

    def _path(self) -> str:
        return str(_filesystem("/".join(self.parts[:2]), os.getpid())._strip_protocol(str(self)))

    def _do(self, what: str, work: Callable[[Any, str], T]) -> T:
        """Every access to a store goes through here."""
        try:
            fs = _filesystem("/".join(self.parts[:2]), os.getpid())
            return attempt(lambda: work(fs, fs._strip_protocol(str(self))))
        except FileNotFoundError:
            raise
        except OSError as error:
            if isinstance(error, FileExistsError) or _other_version(error):
                raise FileExistsError(str(self)) from error
            raise StoreUnreachable(
                f"{self}: can't be {what}: {one_line(error)}; check the address, the credentials and the network, "
                "and run again"
            ) from error


class _Object(Stream):
    """An object's bytes. Where a local file could be renamed while it is open, reading goes on in the new place."""

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
            at, moved, self._aside = self.tell(), self._aside, None
            self._open(moved)
            self.seek(at)
            return super().readinto(buffer)


@functools.cache
def _filesystem(root: str, process: int) -> Any:
    """One for all threads of a process, without a memory of listings: others write as well. A fork makes its own."""
    fs, _ = filesystem(root.replace(":/", "://", 1), skip_instance_cache=True)
    fs.dircache.use_listings_cache = False
    return fs


def _other_version(error: BaseException | None) -> bool:
    """Whether a store refused a put because of its condition."""
    while error is not None:
        response = getattr(error, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        if code in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
            return True
        error = error.__cause__
    return False
