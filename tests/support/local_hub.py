"""Serve a hub on this machine: the few routes of the Hugging Face hub that publishing and fetching a model take."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN, READ_ONLY = "hf_writer", "hf_reader"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalHub(ThreadingHTTPServer):
    """Serve ``files`` (repository -> path -> content); a repository is gated if its name holds "gated"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, object]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: LocalHub

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        elif parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in self.server.files:
            self._answer({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": []})
        else:
            self._refuse(404, "RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        parts = self.path.split("?")[0].strip("/").split("/")
        repository = "/".join(parts[2:4])
        if self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif token != TOKEN:
            self._refuse(403 if token == READ_ONLY else 401, "")
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            repository = f"{wanted['organization']}/{wanted['name']}"
            self.server.created.append(wanted)
            self.server.files.setdefault(repository, {})
            self._answer({"url": f"{self.server.address}/{repository}"})
        elif parts[4] == "preupload":
            files = [{"path": item["path"], "uploadMode": "regular"} for item in json.loads(body)["files"]]
            self._answer({"files": [item | {"shouldIgnore": False, "oid": None} for item in files]})
        elif parts[4] == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer({"commitUrl": f"{self.server.address}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._refuse(404, "")

    def _file(self, repository: str, revision: str, path: str) -> None:
        if repository not in self.server.files:
            self._refuse(401, "RepoNotFound")
        elif "gated" in repository:
            self._refuse(403, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif path not in self.server.files[repository]:
            self._refuse(404, "EntryNotFound")
        else:
            self._send(200, self.server.files[repository][path])

    def _answer(self, values: object) -> None:
        self._send(200, json.dumps(values).encode())

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        etag = hashlib.sha256(content).hexdigest()
        common = {"Content-Length": str(len(content)), "ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        for name, value in (common | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print no line per request."""


@contextlib.contextmanager
def local_hub() -> Iterator[LocalHub]:
    """Serve a hub until the end of the block."""
    with LocalHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
