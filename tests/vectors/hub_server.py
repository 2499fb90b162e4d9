"""The part of the Hugging Face hub that one upload and one download need, over a local folder.

Each commit is a folder `user/name/<commit>` with all its files; `main` is the newest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"
LOST = "nobody"
"""Whose repositories the server ends the connection at, without an answer."""


class Hub(ThreadingHTTPServer):
    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, list[str]] = {}
        self.visibility: dict[str, str] = {}

    def files(self, repo: str, revision: str = "main") -> Path:
        """The folder of a commit."""
        return self.folder / repo / (self.commits[repo][-1] if revision == "main" else revision)

    def create(self, name: str, organization: str, visibility: str) -> str:
        repo = f"{organization}/{name}"
        self.visibility.setdefault(repo, visibility)
        self.commits.setdefault(repo, [])
        return f"{self.url}/{repo}"

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> str:
        known = self.commits[repo]
        commit = hashlib.sha1(f"{repo}{len(known)}".encode()).hexdigest()
        target = self.folder / repo / commit
        target.mkdir(parents=True)
        if known:
            shutil.copytree(self.files(repo), target, dirs_exist_ok=True)
        for line in lines:
            if line["key"] == "file":
                (target / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
        known.append(commit)
        return commit


class Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            asked = json.loads(body)
            if asked["organization"] == LOST:
                return None
            url = self.server.create(asked["name"], asked["organization"], asked["visibility"])
            return self._json({"url": url})
        _, _, _, user, name, action, _ = path.split("/")
        if action == "preupload":
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return self._json({"files": [{**file, "shouldIgnore": False} for file in files]})
        commit = self.server.commit(f"{user}/{name}", [json.loads(line) for line in body.splitlines()])
        return self._json({"commitUrl": f"{self.server.url}/{user}/{name}/commit/{commit}", "commitOid": commit})

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        user, name, *rest = parts[2:] if parts[0] == "api" else parts
        action, revision, *file = rest or ["revision", "main"]
        repo = f"{user}/{name}"
        if repo not in self.server.commits:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        folder = self.server.files(repo, revision)
        if action == "revision":
            return self._json({"id": repo, "sha": folder.name})
        if action == "tree":
            return self._json([{"type": "file", "path": path.name, **_facts(path)} for path in folder.iterdir()])
        data = folder.joinpath(*file).read_bytes()
        return self._send(data, 200, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": folder.name})

    do_HEAD = do_GET

    def _json(self, found: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(found).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _facts(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"size": len(data), "oid": _oid(data)}


def _oid(data: bytes) -> str:
    """Git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
