"""A loopback server that answers as the Hub does, as far as `huggingface_hub` and `datasets` ask.

Data set info, tree listing, paths-info and `resolve/` (HEAD and ranged GET, the latter by way of a redirect, as the
Hub's CDN does it). What it serves are the files it is given; `requests` holds what was asked.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

SHA = "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"


class Hub:
    def __init__(self, repo: str, files: dict[str, bytes], *, gated: bool = False) -> None:
        self.repo, self.files, self.gated = repo, files, gated
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def info(self) -> dict[str, Any]:
        return {
            "_id": "0",
            "id": self.repo,
            "sha": SHA,
            "private": False,
            "gated": "auto" if self.gated else False,
            "tags": [],
            "cardData": {"license": "mit"},
            "siblings": [{"rfilename": name} for name in sorted(self.files)],
        }

    def entries(self) -> list[dict[str, Any]]:
        """Every file and folder, as the tree listing and paths-info show them."""
        folders = {name.rsplit("/", 1)[0] for name in self.files if "/" in name}
        files = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.files.items()
        ]
        return [*files, *({"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in folders)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        api, files = f"/api/datasets/{self.hub.repo}", f"/datasets/{self.hub.repo}/resolve/"
        if not path.startswith((api, files, "/cdn/")):
            return self._error(404 if path.startswith("/api/agent") else 401, "RepoNotFound")
        if path.startswith("/cdn/"):
            return self._file(self.hub.files[path.removeprefix("/cdn/")])
        if self.hub.gated:
            return self._error(403, "GatedRepo")
        if path.startswith(files):
            return self._resolve(path.removeprefix(files))
        return self._api(path.removeprefix(api), body)

    def _api(self, rest: str, body: bytes) -> None:
        revision = [*rest.split("/"), "", "", ""][2]
        if revision not in ("", "main", SHA):
            return self._error(404, "RevisionNotFound")
        if rest == "" or rest.startswith("/revision/"):
            return self._json(self.hub.info())
        if rest.startswith("/tree/"):
            return self._tree(rest.removeprefix(f"/tree/{revision}").strip("/"))
        if rest.startswith("/paths-info/"):
            wanted = _paths(body)
            return self._json([entry for entry in self.hub.entries() if entry["path"] in wanted])
        return self._error(404, "EntryNotFound")

    def _tree(self, folder: str) -> None:
        recursive = "recursive=true" in self.path.lower()
        inside = [e for e in self.hub.entries() if not folder or e["path"].startswith(folder + "/")]
        depth = folder.count("/") + 1 if folder else 0
        self._json([entry for entry in inside if recursive or entry["path"].count("/") == depth])

    def _resolve(self, rest: str) -> None:
        revision, _, name = rest.partition("/")
        if revision not in ("main", SHA):
            return self._error(404, "RevisionNotFound")
        if name not in self.hub.files:
            return self._error(404, "EntryNotFound")
        data = self.hub.files[name]
        headers = {
            "X-Repo-Commit": SHA,
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
        }
        if name.endswith(".md"):  # small text files come from the Hub itself, data from the CDN, which is another host
            return self._send(200, data, headers)
        cdn = self.hub.url.replace("127.0.0.1", "localhost")
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-ETag": headers["ETag"], "Location": f"{cdn}/cdn/{name}"}
        return self._send(302, b"", headers)

    def _file(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        if not asked:
            return self._send(200, data, {"Accept-Ranges": "bytes", "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data)), len(data) - 1)
        if start >= len(data):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        return self._send(206, data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _paths(body: bytes) -> list[str]:
    """The paths of a paths-info request, which comes as JSON or as a form."""
    if body.startswith(b"{"):
        return list(json.loads(body)["paths"])
    return [unquote(part.partition("=")[2].replace("+", " ")) for part in body.decode().split("&") if "paths" in part]
