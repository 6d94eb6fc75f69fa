"""A loopback server that takes a push as the Hub does: create, preupload, LFS batch and upload, commit.

`files` holds what the last commit left, `deleted` what it took away; `private` what the repository was made as. `failures`:
part of a path, and the statuses with which the next requests there are answered; 0 drops the connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SHA = "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"


class PushHub:
    def __init__(self, repo: str, files: dict[str, bytes], token: str) -> None:
        self.repo, self.files, self.token = repo, files, token
        self.deleted: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.private: bool | None = None
        self.commits = 0
        self.uploads = 0
        self.failures: dict[str, list[int]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> PushHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: PushHub

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub, body = self.hub, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        for part, statuses in hub.failures.items():
            if part in path and statuses:
                return self._fail(statuses.pop(0))
        if path.startswith("/lfs/"):
            hub.uploads += 1
            hub.objects[path.removeprefix("/lfs/")] = body
            return self._json({})
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._json({"error": "Invalid credentials"}, 401)
        api = f"/api/datasets/{hub.repo}"
        if path == "/api/repos/create":
            if hub.private is not None:
                url = f"{hub.url}/datasets/{hub.repo}"
                return self._json({"error": "You already created this dataset repo", "url": url}, 409)
            asked = json.loads(body)
            hub.private = bool(asked.get("private") or asked.get("visibility") == "private")
            return self._json({"url": f"{hub.url}/datasets/{hub.repo}"})
        if path == f"{api}/preupload/main":
            asked = json.loads(body)["files"]
            return self._json({"files": [_mode(file["path"]) for file in asked]})
        if path == f"/datasets/{hub.repo}.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            return self._json({"transfer": "basic", "objects": [self._upload(o) for o in objects]})
        if path == f"{api}/commit/main":
            return self._commit([json.loads(line) for line in body.splitlines()])
        if path.startswith(f"{api}/tree/main"):
            return self._json([{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in hub.files])
        if path in (api, f"{api}/revision/main"):
            siblings = [{"rfilename": name} for name in hub.files]
            about = {"_id": "0", "id": hub.repo, "sha": SHA, "private": bool(hub.private), "tags": []}
            return self._json(about | {"siblings": siblings})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        return self._json({"error": path}, 404)

    def _upload(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.hub.objects:
            return wanted  # as the Hub says of what it has
        return wanted | {"actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        hub = self.hub
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = hub.objects[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                hub.files[value["path"]] = data
            elif line["key"] == "deletedFile":
                hub.deleted.append(value["path"])
                del hub.files[value["path"]]
        hub.commits += 1
        self._json({"commitUrl": f"{hub.url}/datasets/{hub.repo}/commit/{SHA}", "commitOid": SHA})

    def _fail(self, status: int) -> None:
        if status:
            return self._json({"error": "as the test wants it"}, status)
        self.close_connection = True
        return None

    def _json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _mode(path: str) -> dict[str, Any]:
    return {"path": path, "uploadMode": "lfs" if path.endswith(".parquet") else "regular", "shouldIgnore": False}
