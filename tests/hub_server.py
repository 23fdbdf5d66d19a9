"""A small Hub on the loopback: what the huggingface_hub client asks for when it lists and fetches a model.

Large files (`*.safetensors`, `*.bin`) are redirected to a second address, as the Hub does with its
content network, so that resuming, linked etags and the token staying at home are tested too.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as `HubServer.push` takes them."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@dataclass
class Repo:
    """One repository: revision (branch or commit) -> its files."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)  # branch or commit -> commit
    gated: bool = False
    private: bool = False
    token: str = ""  # opens the repository


@dataclass
class HubServer:
    """Use as a context manager; `url` is the endpoint.

    Attributes:
        repos: id -> repository.
        requests: ("GET" or "HEAD", path) of everything about models, in order.
        tokens: the Authorization header of each of `requests`, "" where there was none.
        cut: file name -> how many bytes each of the next answers sends before the line goes dead.
        broken: the status that everything is answered with, or None.
        busy: status and Retry-After header of the next answers to a listing.
        answer: what the list is answered with instead of JSON, or None.
        listed: called after each answer to a listing.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    cut: dict[str, list[int]] = field(default_factory=dict)
    broken: int | None = None
    busy: list[tuple[int, str]] = field(default_factory=list)
    answer: bytes | None = None
    listed: Callable[[], None] | None = None
    servers: list[ThreadingHTTPServer] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        for _ in ("hub", "content network"):
            server = Server(("127.0.0.1", 0), Handler)
            server.hub = self
            self.servers.append(server)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuses connections from now on."""
        while self.servers:
            server = self.servers.pop()
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return address(self.servers[0])

    def push(self, name: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Makes `files` the content of a branch; returns the commit."""
        repo = self.repos.setdefault(name, Repo())
        digest = hashlib.sha1(usedforsecurity=False)
        for path in sorted(files):
            digest.update(path.encode() + files[path])
        commit = digest.hexdigest()
        for revision in (branch, commit):
            repo.revisions[revision], repo.commits[revision] = dict(files), commit
        return commit

    def fetched(self) -> list[str]:
        """The names of the files whose content was asked for."""
        return [path.rpartition("/")[2] for method, path in self.requests if is_content(method, path)]

    def forget(self) -> None:
        self.requests.clear()
        self.tokens.clear()


def is_content(method: str, path: str) -> bool:
    # a large file's content is asked for at its second address only
    large = path.endswith(LARGE) and not path.startswith("/content/")
    return method == "GET" and not path.startswith("/api/") and not large


def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, quoted = self.server.hub, urlsplit(self.path).path
        path = unquote(quoted)
        if not path.startswith("/api/") or path.startswith("/api/models/"):
            hub.requests.append((self.command, path))
            hub.tokens.append(self.headers.get("Authorization", ""))
        if hub.broken is not None:
            self.reply(hub.broken)
        elif path.startswith("/api/models/") and hub.busy:
            status, wait = hub.busy.pop(0)
            self.reply(status, {"Retry-After": wait} if wait else {})
        elif path.startswith("/api/models/"):
            # a revision's own slashes come quoted
            name, _, revision = quoted.removeprefix("/api/models/").partition("/revision/")
            revision = unquote(revision)
            if (found := self.commit(name, revision)) is not None:
                self.list_files(name, found)
        elif path.startswith("/content/"):
            _, _, name, commit, file = path.split("/", 4)
            self.send(file, hub.repos[name.replace("--", "/")].revisions[commit][file])
        elif "/resolve/" in path:
            name, _, rest = quoted[1:].partition("/resolve/")
            revision, file = (unquote(part) for part in rest.split("/", 1))
            if (found := self.commit(name, revision)) is not None and self.admitted(name):
                self.resolve(name, found, file)
        else:
            self.reply(404)

    def commit(self, name: str, revision: str) -> str | None:
        """The commit of a revision; answers with the Hub's error if there is none."""
        repo, token = self.server.hub.repos.get(name), self.headers.get("Authorization", "")
        if "invalid" in token:
            message = "Invalid credentials in Authorization header"
            return self.reply(401, {"X-Error-Message": message})
        if repo is None or (repo.private and token != f"Bearer {repo.token}"):
            return self.reply(401 if repo else 404, {"X-Error-Code": "RepoNotFound"})
        if revision not in repo.commits:
            return self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        return repo.commits[revision]

    def admitted(self, name: str) -> bool:
        repo, token = self.server.hub.repos[name], self.headers.get("Authorization", "")
        if repo.gated and token != f"Bearer {repo.token}":
            self.reply(403 if token else 401, {"X-Error-Code": "GatedRepo"})
            return False
        return True

    def list_files(self, name: str, commit: str) -> None:
        hub = self.server.hub
        files = hub.repos[name].revisions[commit]
        info = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in sorted(files)]}
        self.reply(200, {"Content-Type": "application/json"}, hub.answer or json.dumps(info).encode())
        if hub.listed is not None:
            hub.listed()

    def resolve(self, name: str, commit: str, file: str) -> None:
        content = self.server.hub.repos[name].revisions[commit].get(file)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            self.reply(404, {**headers, "X-Error-Code": "EntryNotFound"})
        elif file.endswith(LARGE):
            etag = hashlib.sha256(content).hexdigest()
            network = address(self.server.hub.servers[1])
            headers |= {
                "Location": f"{network}/content/{name.replace('/', '--')}/{commit}/{file}",
                "X-Linked-Etag": f'"{etag}"',
                "X-Linked-Size": str(len(content)),
            }
            self.reply(302, headers)
        else:
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            self.send(file, content, {**headers, "ETag": f'"{etag}"'})

    def send(self, file: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A file, from where the client wants it, as far as the line holds."""
        headers, status, wanted = dict(headers or {}), 200, self.headers.get("Range")
        if wanted is not None:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        cuts = self.server.hub.cut.get(file)
        if self.command == "GET" and cuts:
            self.reply(status, headers, content, most=cuts.pop(0))
        else:
            self.reply(status, headers, content)

    def reply(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        most: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:most])
        if most is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
