"""Serve one GGUF file to this process: llama.cpp's own HTTP server, on the loopback, behind a random key.

Promise: it listens on 127.0.0.1 alone, on a port that the system picks, and refuses requests without the key (except the
health check and the list of models); it writes nothing to the terminal; a prompt longer than the context is an HTTP 400, an
answer that fills it stops with finish_reason "length", and nothing is ever shifted out of the context; it ends with this
process, also while requests run, also after kill −9. It answers one request at a time, on one thread: without a cached prompt
the same seed gives the same text, and beside other work more threads are slower than one.
Cost: a child process (50 MB); the file is mapped, not copied (servers of the same file share it); the context's memory
(SmolLM2: 23 kB per token, Qwen 1.5B: 29 kB).
"""

import atexit
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

from pipeline.errors import ModelUnavailable

_CHILD = Path(__file__).with_name("server_process.py")
_START_TIMEOUT = 600.0  # seconds: a gigabyte from a cold network disk
_ERRORS_ONLY = 1


class LocalServer:
    """A running server."""

    def __init__(self, path: Path, *, context: int) -> None:
        self.model = path.stem
        self.api_key = secrets.token_urlsafe(24)
        verbosity = int(os.environ.get("FIGA_LLAMA_LOG") or _ERRORS_ONLY)
        settings = {"path": str(path), "model": self.model, "context": context, "key": self.api_key}
        self._child, self.url = _start(settings | {"verbosity": verbosity})
        self.base_url = f"{self.url}/v1"

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def close(self) -> None:
        """Stop serving; requests in flight fail. Calling it again does nothing."""
        _end(self._child)


_servers: dict[tuple[Path, int, int], LocalServer] = {}
_lock = threading.Lock()


def serve(path: Path, *, context: int = 4096, replica: int = 0) -> LocalServer:
    """The server for `path` with so many tokens of context, per `replica`: the running one, else a new one."""
    key = (path.absolute(), context, replica)
    with _lock:
        if key not in _servers or not _servers[key].running:
            _servers[key] = LocalServer(key[0], context=context)
        return _servers[key]


def close_all() -> None:
    """Stop every server of this process. Runs at exit by itself."""
    with _lock:
        for server in _servers.values():
            server.close()
        _servers.clear()


def cores() -> int:
    """Cores that this process may use, within the container's CPU limit (cgroup v2); at least one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(usable, round(int(limit) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return usable


def _start(settings: dict[str, Any]) -> tuple[subprocess.Popen[bytes], str]:
    """Start the child and wait until the model is loaded; returns the child and the server's address."""
    _check_file(Path(settings["path"]))
    with tempfile.TemporaryFile() as noise:
        child = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],  # -P: this folder's files must not shadow the standard library's
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("FIGA_LLAMA_LOG") else noise,
            # Threads that sleep instead of spinning while they wait for each other: beside other work on the machine,
            # spinning cost a factor of three to ten with as many threads as cores.
            env={"OMP_WAIT_POLICY": "passive", **os.environ},
            start_new_session=True,  # Ctrl-C is for the pipeline to handle; the child ends when its stdin closes
        )
        watchdog = threading.Timer(_START_TIMEOUT, child.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            assert child.stdin and child.stdout  # noqa: S101 - both are pipes, for the type checker
            child.stdin.write(json.dumps(settings).encode() + b"\n")
            child.stdin.flush()
            reply = json.loads(child.stdout.readline() or b"{}")
        except BrokenPipeError:
            reply = {}
        except BaseException:
            _end(child)
            raise
        finally:
            watchdog.cancel()
        if "url" in reply:
            return child, reply["url"]
        _end(child)
        raise ModelUnavailable(_why(reply, settings, child.returncode, noise))


def _why(reply: dict[str, str], settings: dict[str, Any], status: int, noise: IO[bytes]) -> str:
    if ".so" in reply.get("missing", ""):  # installed, but the system lacks a library: libgomp on slim images
        return f"xllamacpp can't be loaded ({reply['missing']}): install that system library (Debian: libgomp1)"
    if "missing" in reply:
        return f"local models need the package xllamacpp ({reply['missing']}): pip install -e '.[local]'"
    noise.seek(0)
    lines = [line.strip() for line in noise.read().decode(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if "error" in line.lower()][:1] or lines
    reason = lines[-1] if lines else reply.get("failed") or f"its process ended with status {status}"
    return (
        f"llama.cpp can't serve {settings['path']} with {settings['context']} tokens of context: {reason[:200]}; "
        "FIGA_LLAMA_LOG=4 shows its own log"
    )


def _check_file(path: Path) -> None:
    """Report the two commonest mistakes; llama.cpp only says "failed"."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelUnavailable(f"the model file {path} can't be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise ModelUnavailable(f"{path} is not a GGUF model: it begins with {magic!r} instead of b'GGUF'")


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()  # it keeps nothing that an orderly end would save
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe:
            pipe.close()


def _forget_after_fork() -> None:
    """The servers belong to the parent: a forked child must neither stop them nor keep them alive after the parent."""
    global _lock  # noqa: PLW0603 - another thread may have held it during the fork
    _lock = threading.Lock()
    for server in _servers.values():
        if server._child.stdin:
            server._child.stdin.close()  # this process's copy; the parent's keeps the server up
        server._child.returncode = 0  # not this process's child: nothing to wait for
    _servers.clear()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
