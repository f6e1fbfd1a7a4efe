"""The guard before the application: whose requests are let in, how large, and what browsers may do with answers."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relprop.app.asking import BODY, BYTES
from relprop.app.refusals import Refused

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
UPLOADS = "/api/pictures"
OVERRUN = 3  # times the largest body are read before the connection is cut
METHODS = ("GET", "HEAD", "POST")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}


class Guard:
    """Lets in what names this server as its host and, if it writes, comes from its own pages.

    A page of another site can send requests to the loopback, and by rebinding its name to 127.0.0.1 read the answers
    too. The host's name tells the latter apart, the origin the former. Ports are not compared to the host's: a tunnel
    may give the server another one.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower().strip("[]")}
        self._everywhere = not is_loopback(host)
        if self._everywhere:
            self._hosts |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive)
        answer = _guarded(scope, send, body)
        try:
            self._require_welcome(scope)
        except Refused as refused:
            await refuse(refused, answer)
            return
        await self._app(scope, body.receive, answer)

    def _require_welcome(self, scope: Scope) -> None:
        headers = _headers(scope)
        host = headers.get("host", "")
        if not self._known(host):
            raise Refused(421, "unknown_host", f"This server does not answer as {host[:100]!r}. Open it as localhost.")
        if scope["method"] not in METHODS:
            raise Refused(405, "method_not_allowed", f"The method {scope['method'][:20]} is not answered here.")
        if scope["method"] != "POST":
            if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
                raise Refused(400, "unexpected_body", f"A {scope['method']} request has no body.")
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        own = origin is None or (urlsplit(origin).netloc.lower() == host.lower() and origin.startswith("http"))
        if not own or site not in ("same-origin", "none"):
            raise Refused(403, "other_origin", "Requests from pages of other sites are not answered.")

    def _known(self, host: str) -> bool:
        name = _name(host)
        return name in self._hosts or (self._everywhere and _is_address(name))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    return host in LOOPBACK or (_is_address(host.strip("[]")) and ipaddress.ip_address(host.strip("[]")).is_loopback)


async def refuse(refused: Refused, send: Send) -> None:
    """The answer of a refusal."""
    body = json.dumps(refused.told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Body:
    """The body of a request, measured while it arrives, whatever its headers say of it.

    A little of what is too much is read, and let go: a client that is cut off while it sends can't read why.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive, self._read = receive, 0
        self._most = BYTES if scope["path"] == UPLOADS else BODY
        # Whether all of it was read, if there is one.
        self.whole = not {b"content-length", b"transfer-encoding"} & {name for name, _ in scope["headers"]}

    async def receive(self) -> Message:
        """The next part. Raises Refused when there is too much."""
        message = await self._next()
        while self._read > self._most and message["type"] == "http.request":
            if self.whole or self._read > OVERRUN * self._most:
                most = f"{self._most // 1_000_000} MB"
                raise Refused(413, "too_large", f"The request is larger than {most}.", bytes=self._most)
            message = await self._next()
        return message

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
        return message


def _guarded(scope: Scope, send: Send, body: _Body) -> Send:
    """`send`, with the headers that say what browsers may do."""
    store = b"no-store" if scope["path"].startswith("/api/") else b"no-cache"

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: list[Any] = list(message.get("headers", ()))
            given = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _HEADERS.items() if name not in given]
            if b"cache-control" not in given:
                headers.append((b"cache-control", store))
            if not body.whole:  # or the server would go on reading it, without end
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await send(message)

    return guarded


def _headers(scope: Scope) -> dict[str, str]:
    found: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in found}


def _name(host: str) -> str:
    """The name in a Host header, without its port; "" where it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
