"""The Hugging Face hub's HTTP interface as far as an upload of a dataset needs it; it keeps what it is sent."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """`files` is what was committed, `blobs` what was uploaded by digest; `refuse` is a status for all requests."""

    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    refuse: int = 0
    fail_at: str = ""  # a part of a path that is answered by 500
    address: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """(status, JSON) of a request."""
        if self.refuse:
            return self.refuse, {"error": "no"}
        if self.fail_at and self.fail_at in path:
            return 500, {"error": "broken"}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            modes = [
                (one["path"], "regular" if one["path"].endswith((".md", ".csv", ".json")) else "lfs") for one in asked
            ]
            return 200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False, "oid": None} for p, m in modes]}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._object(one) for one in json.loads(body)["objects"]]}
        if method == "PUT" and path.startswith("/blob/"):
            self.blobs[path.removeprefix("/blob/")] = body
            return 200, {}
        if "/commit/" in path:
            return self._commit("/".join(path.split("/")[3:5]), [json.loads(line) for line in body.splitlines()])
        if path.startswith("/api/datasets/"):
            name = "/".join(path.split("/")[3:5])
            known = name in self.private
            return (
                (200, {"id": name, "private": self.private[name], "sha": "0" * 40, "siblings": []})
                if known
                else (404, {})
            )
        return 404, {"error": f"{method} {path}"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        is_there = name in self.private
        private = asked.get("private") or asked.get("visibility") == "private"
        self.private.setdefault(name, bool(private))
        return 409 if is_there else 200, {"url": f"{self.address}/datasets/{name}"}

    def _object(self, one: dict[str, Any]) -> dict[str, Any]:
        known = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] in self.blobs:
            return known
        return known | {"actions": {"upload": {"href": f"{self.address}/blob/{one['oid']}", "header": {}}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
        return 200, {
            "success": True,
            "commitOid": "1" * 40,
            "commitUrl": f"{self.address}/datasets/{name}/commit/{'1' * 40}",
        }


def _mode(path: str) -> dict[str, Any]:
    mode = "regular" if path.endswith((".md", ".csv", ".json")) else "lfs"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}


def serve(hub: Hub) -> ThreadingHTTPServer:
    """Starts the hub on a free port; the caller shuts it down."""

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            hub.requests.append((self.command, path))
            hub.tokens.add(self.headers.get("Authorization") or "")
            status, answer = hub.answer(self.command, path, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_HEAD = do_any

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
