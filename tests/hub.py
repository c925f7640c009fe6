"""A hub on this machine: as much of the Hugging Face hub as pushing and pulling take."""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789012345678901234567890123456789"


class Hub:
    """Keeps repositories in memory; ``with Hub() as hub`` serves them at ``hub.url``."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.branches: list[str] = []
        self.tokens: set[str | None] = set()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_) -> None:
        pass

    def _answer(self, content=b"", status=200, headers=()) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self) -> None:
        self._answer({"error": "no such repository"}, 404, [("X-Error-Code", "RepoNotFound")])

    def do_POST(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0].strip("/").split("/")
        if path == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.hub.repositories.setdefault(name, {})
            self.hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
            return self._answer({"url": f"{self.hub.url}/{name}"})
        if path == ["api", "validate-yaml"]:
            return self._answer({"errors": [], "warnings": []})
        name, action = "/".join(path[2:4]), path[4]
        if name not in self.hub.repositories:
            return self._missing()
        if action == "branch":
            self.hub.branches.append(path[5])
            return self._answer({})
        if action == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.hub.repositories[name][line["value"]["path"]] = content
        url = f"{self.hub.url}/{name}/commit/{COMMIT}"
        return self._answer({"commitUrl": url, "commitOid": COMMIT})

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/").split("/")
        if path == [""]:
            return self._answer(b"a hub")
        if path[:2] == ["api", "models"]:
            files = self.hub.repositories.get("/".join(path[2:4]))
            if files is None:
                return self._missing()
            if path[4:5] == ["tree"]:
                rows = [
                    {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                    for name, content in files.items()
                ]
                return self._answer(rows)
            siblings = [{"rfilename": name} for name in files]
            return self._answer({"id": "/".join(path[2:4]), "sha": COMMIT, "siblings": siblings})
        content = self.hub.repositories.get("/".join(path[:2]), {}).get("/".join(path[4:]))
        if content is None:
            return self._answer(b"", 404, [("X-Error-Code", "EntryNotFound")])
        headers = [("ETag", f'"{_oid(content)}"'), ("X-Repo-Commit", COMMIT)]
        return self._answer(content, headers=headers)

    do_HEAD = do_GET


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
