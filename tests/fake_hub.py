"""A Hugging Face hub on loopback: the few endpoints that `huggingface_hub` needs to download a model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class FakeHub:
    """Serves folders as repositories. `revisions` maps (repository, commit, tag or branch) to a commit and its files.

    `asked` holds every request as "METHOD path". `down` answers 503 to all; while `gate` is cleared, downloads of
    weights wait for it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.revisions: dict[tuple[str, str], tuple[str, dict[str, bytes]]] = {}
        self.asked: list[str] = []
        self.down = False
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def publish(
        self, name: str, directory: Path, *, revision: str = "main", extra: dict[str, bytes] | None = None
    ) -> str:
        """Makes the folder's files the newest of a branch or tag; returns the commit."""
        files = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()} | (extra or {})
        commit = hashlib.sha1(b"".join(name.encode() + content for name, content in files.items())).hexdigest()
        self.revisions[name, revision] = self.revisions[name, commit] = commit, files
        return commit

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. Paths are `/api/models/ORG/NAME/...` and `/ORG/NAME/resolve/COMMIT/FILE`."""
        self.asked.append(f"{method} {path}")
        if self.down:
            return 503, {}, b""
        parts = path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if is_api else parts[:2]), parts[4:] if is_api else parts[2:]
        if not any(known == name for known, _ in self.revisions):
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        found = self.revisions.get((name, rest[1]))
        if found is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        commit, files = found
        match rest:
            case ["revision", _]:
                siblings = [{"rfilename": file} for file in files]
                document: object = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}
                return 200, {}, json.dumps(document).encode()
            case ["tree", _, *_]:
                document = [
                    {"type": "file", "path": file, "size": len(content), "oid": etag(content)}
                    for file, content in files.items()
                ]
                return 200, {}, json.dumps(document).encode()
            case ["resolve", _, *file] if "/".join(file) in files:
                content = files["/".join(file)]
                if method == "GET" and file[-1].endswith(".safetensors"):
                    self.waiting.set()
                    self.gate.wait(60)
                return 200, {"ETag": f'"{etag(content)}"', "X-Repo-Commit": commit}, content
        return 404, {"X-Error-Code": "EntryNotFound"}, b""


def etag(content: bytes) -> str:
    """Names a content, as git does."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _respond(self) -> None:
            status, headers, body = hub.answer(self.command, urlsplit(self.path).path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = _respond  # noqa: N815 - the names that the library calls

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = FakeHub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()
