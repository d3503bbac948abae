"""A hub on this machine: real HTTP, the hub's own paths, repositories from folders. Written after huggingface_hub's requests."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)(?:/(?P<what>revision|tree|paths-info)/(?P<revision>[^/?]+)(?P<path>/[^?]*)?)?"
)
_FILE = re.compile(r"/(?P<datasets>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>[^?]+)")


class LocalHub:
    """Repositories by (kind, id): a folder and its only commit. `asked` has every request as `METHOD path`."""

    def __init__(self, repositories: Mapping[tuple[str, str], tuple[Path, str]]):
        self.repositories = dict(repositories)
        self.asked: list[str] = []
        self.url = ""

    def files(self) -> list[str]:
        """Paths of the files whose bytes were fetched."""
        return [found["path"] for line in self.asked if (found := re.match(r"GET /(?:[^ ]*)/resolve/[^/]+/(?P<path>[^?]+)", line))]


def _info(kind: str, name: str, folder: Path, commit: str) -> dict[str, Any]:
    siblings = [{"rfilename": str(path.relative_to(folder))} for path in sorted(folder.rglob("*")) if path.is_file()]
    return {"_id": commit, "id": name, f"{kind[:-1]}Id": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    if path.is_dir():
        return {"type": "directory", "path": str(path.relative_to(folder)), "oid": "0" * 40, "size": 0}
    oid = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"type": "file", "path": str(path.relative_to(folder)), "oid": oid, "size": path.stat().st_size}


@contextmanager
def serve(repositories: Mapping[tuple[str, str], tuple[Path, str]]) -> Iterator[LocalHub]:
    """Serve them on a free port until the block ends."""
    hub = LocalHub(repositories)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def _answer(self, body: bytes) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            if found := _API.match(self.path):
                return self._api(found, body)
            if found := _FILE.match(self.path):
                return self._file(found)
            return self._send(404, b"{}", {})

        def _find(self, kind: str, name: str, revision: str | None) -> tuple[Path, str] | None:
            folder, commit = hub.repositories.get((kind, name), (Path(), ""))
            return (folder, commit) if commit and revision in (None, "main", commit) else None

        def _api(self, found: re.Match[str], body: bytes) -> None:
            place = self._find(found["kind"], found["id"], found["revision"])
            if place is None:
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            folder, commit = place
            if found["what"] == "tree":
                below = folder / (found["path"] or "/").strip("/")
                if not below.is_dir():
                    return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                deep = "recursive=true" in self.path.lower()
                paths = sorted(below.rglob("*") if deep else below.iterdir())
                answer: Any = [_entry(path, folder) for path in paths]
            elif found["what"] == "paths-info":
                wanted = json.loads(body)["paths"] if body[:1] == b"{" else []
                answer = [_entry(folder / path, folder) for path in wanted if (folder / path).exists()]
            else:
                answer = _info(found["kind"], found["id"], folder, commit)
            return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _file(self, found: re.Match[str]) -> None:
            place = self._find("datasets" if found["datasets"] else "models", found["id"], found["revision"])
            if place is None:
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            folder, commit = place
            if not (folder / found["path"]).is_file():
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            content = (folder / found["path"]).read_bytes()
            return self._send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
