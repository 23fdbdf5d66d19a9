"""The server of a live page: loopback only, one computation at a time, the newest request first.

A page of another site could send requests to a server on this machine. So a request must name this server in
its Host header (DNS rebinding), come from its own page (Origin) and have the token of the page's address.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LOOPBACK = "127.0.0.1"
LARGEST = 1_000_000  # bytes of a request
SECONDS = 10.0  # for a client that sends nothing
_CLIENTS = 256  # pages whose newest request is remembered

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class LabServer(ThreadingHTTPServer):
    """Serves a page at `url`, and its requests for data.

    Args:
        page: makes the page's HTML, from the token and a nonce for its scripts.
        answer: computes the data of a request; a TypeError or ValueError becomes a message on the page.
        port: of 127.0.0.1; 0: a free one.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that wait, as after many quick edits
    block_on_close = False

    def __init__(self, page: Callable[[str, str], str], answer: Answer, port: int = 0) -> None:
        self.page, self.answer = page, answer
        self.token = secrets.token_urlsafe(16)
        self._computing, self._guard = threading.Lock(), threading.Lock()
        self._newest: dict[str, int] = {}
        self._closed = False
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the page, with its token."""
        return f"http://{LOOPBACK}:{self.server_port}/?token={self.token}"

    @property
    def hosts(self) -> tuple[str, str]:
        """The names by which a request may call this server."""
        return f"{LOOPBACK}:{self.server_port}", f"localhost:{self.server_port}"

    def compute(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Returns the data of a request; None if the same page has sent a newer one in the meantime."""
        client, sequence = str(request.get("client", "")), request.get("sequence", 0)
        number = sequence if isinstance(sequence, int) else 0
        with self._guard:
            newest = self._newest.pop(client, 0)
            self._newest[client] = max(number, newest)
            while len(self._newest) > _CLIENTS:
                del self._newest[next(iter(self._newest))]
        with self._computing:
            if self._closed or self._newest.get(client, 0) > number:
                return None
            return self.answer(request)

    def server_close(self) -> None:
        """Frees the port and waits for a computation that runs, after which the model has its heads again."""
        self._closed = True
        super().server_close()
        with self._computing:
            pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a client that left; a closed tab is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: LabServer
    timeout = SECONDS
    _is_read = False  # the body of the request
    server_version, sys_version = "minitx", ""

    def do_GET(self) -> None:
        """Sends the page."""
        address = urlsplit(self.path)
        if not self._is_own() or not self._has_token("".join(parse_qs(address.query).get("token", []))):
            return
        if address.path != "/":
            self._refuse(404, "there is one page, /")
            return
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}' data:; style-src 'unsafe-inline'; "
            "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        page = self.server.page(self.server.token, nonce).encode()
        self._send(200, page, "text/html; charset=utf-8", {"Content-Security-Policy": policy})

    def do_POST(self) -> None:
        """Computes the data of a request."""
        if not self._is_own() or not self._has_token(self.headers.get("X-Token", "")):
            return
        if self.path != "/data":
            self._refuse(404, "there is one address for requests, /data")
            return
        request = self._request()
        if request is None:
            return
        try:
            data = self.server.compute(request)
        except (TypeError, ValueError) as error:
            self._refuse(422, str(error), getattr(error, "parameter", None))
            return
        except Exception as error:  # the page shows it, and the server goes on
            self._refuse(500, f"{type(error).__name__}: {error}")
            return
        self._json(200, {"superseded": True} if data is None else data)

    def _request(self) -> dict[str, Any] | None:
        """Returns the request, or None after an error was sent."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST:
            self._refuse(
                413 if length.isdecimal() else 411, f"a request has a length of at most {LARGEST} bytes"
            )
            return None
        try:
            self._is_read = True
            request = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            self._refuse(400, "a request is a JSON object")
            return None
        if not isinstance(request, dict):
            self._refuse(400, "a request is a JSON object")
            return None
        return request

    def _is_own(self) -> bool:
        """Whether the request calls this server by its name and comes from its own page."""
        origin = self.headers.get("Origin")
        own = self.headers.get("Host", "") in self.server.hosts
        own &= origin is None or origin in [f"http://{host}" for host in self.server.hosts]
        own &= self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
        if not own:
            self._refuse(403, "requests of other sites are refused")
        return own

    def _has_token(self, token: str) -> bool:
        known = secrets.compare_digest(token.encode(), self.server.token.encode())
        if not known:
            self._refuse(403, "open the address that minitx lab printed, with its token")
        return known

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuses what the base class cannot read, such as other methods."""
        self._refuse(code, message or "this request cannot be read")

    def _refuse(self, status: int, message: str, parameter: str | None = None) -> None:
        self.close_connection = True
        self._json(status, {"error": message, "parameter": parameter})

    def _drain(self) -> None:
        """Reads what is left of a request: closing with unread bytes would reset the connection."""
        length = self.headers.get("Content-Length", "")
        if not self._is_read and length.isdecimal() and int(length) <= LARGEST:
            self.rfile.read(int(length))

    def _json(self, status: int, value: Mapping[str, Any]) -> None:
        content = json.dumps(value, allow_nan=False).encode()
        self._send(status, content, "application/json", {})

    def _send(self, status: int, content: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self._drain()
        fixed = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        self.send_response(status)
        for name, value in {**fixed, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Prints nothing: a library does not."""
