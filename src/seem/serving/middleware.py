"""What every request passes before the app sees it, as plain ASGI; the outermost first.

Observe     request id, security headers, log line, metrics; what nobody caught becomes a 500
Guard       Host and Origin, the bearer token, how many requests at once, draining
BoundBody   sizes and speed of bodies, in both directions
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seem.serving.errors import ApiError, busy
from seem.serving.metrics import Metrics
from seem.serving.settings import Settings

log = logging.getLogger("seem.serving")

# Threads of WebAssembly need an isolated page; nothing comes from, or goes to, another origin.
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "font-src 'self'",
        "connect-src 'self' blob: data:",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
API_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


class Observe:
    """Request id, headers, log and metrics of every answer, also of those that the other layers gave."""

    def __init__(self, app: ASGIApp, metrics: Metrics, origins: tuple[str, ...]) -> None:
        self.app, self._metrics, self._shared = app, metrics, bool(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.monotonic()
        answer = {"status": 0, "bytes": 0}

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                self._add_headers(MutableHeaders(scope=message), request_id)
            elif message["type"] == "http.response.body":
                answer["bytes"] += len(message.get("body", b""))
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self.app(scope, receive, observed)
        except Exception:
            log.exception("unexpected", extra={"fields": {"request_id": request_id}})
            if not answer["status"]:
                failed = ApiError(500, "failed", f"the server failed; its log says more under {request_id}")
                await failed.response()(scope, receive, observed)
        finally:
            self._metrics.in_flight.dec()
            self._record(scope, answer, request_id, time.monotonic() - began)

    def _add_headers(self, headers: MutableHeaders, request_id: str) -> None:
        headers["X-Request-Id"] = request_id
        for name, value in _SECURITY.items():
            headers.setdefault(name, value)
        if self._shared:
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        headers.setdefault("Content-Security-Policy", API_POLICY)
        headers.setdefault("Cache-Control", "no-store")

    def _record(self, scope: Scope, answer: dict[str, int], request_id: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # never the raw path: it would make endless series
        self._metrics.requests.labels(route, _method(scope), str(answer["status"])).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        fields = {
            "request_id": request_id,
            "method": _method(scope),
            "route": route,
            "status": answer["status"],
            "ms": round(seconds * 1000, 1),
            "bytes": answer["bytes"],
            "session": scope.get("state", {}).get("session"),
        }
        level = logging.WARNING if answer["status"] >= 500 else logging.INFO
        log.log(level if not route.startswith("/health") else logging.DEBUG, "request", extra={"fields": fields})


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH") else "other"


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


class Drain:
    """Whether the server is about to end, and how much it still has to do."""

    def __init__(self) -> None:
        self.draining = False
        self.in_flight = 0


class Guard:
    """Who may come in."""

    def __init__(self, app: ASGIApp, settings: Settings, drain: Drain) -> None:
        self.app, self._settings, self._drain = app, settings, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        self._drain.in_flight += 1
        try:
            if not scope["path"].startswith("/health/"):
                self._check(scope)
            await self.app(scope, receive, watched)
        except ApiError as error:  # answered here, so that CORS headers are added to it
            if started:
                raise
            await error.response()(scope, receive, send)
        finally:
            self._drain.in_flight -= 1

    def _check(self, scope: Scope) -> None:
        path, headers = scope["path"], Headers(scope=scope)
        self._check_origin(scope, headers)
        if path in ("/metrics", "/openapi.json") or path.startswith(("/v1/", "/label-studio")):
            self._check_token(headers, basic=path.startswith("/label-studio"))
        if self._drain.draining:
            raise busy("the server is about to end", 5)
        if self._drain.in_flight > self._settings.limits.requests:
            raise busy(f"{self._drain.in_flight - 1} requests are being answered")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Another web site must not reach a server on someone's machine, neither by a name of its own nor by a form."""
        host = headers.get("host", "")
        allowed = self._settings.allowed_hosts
        if allowed != ("*",) and _host_name(host) not in allowed:
            raise ApiError(400, "host", f"Host: expected one of {', '.join(allowed)}, got {host[:60]!r}")
        origin = headers.get("origin")
        if origin is None or origin in self._settings.origins or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return
        if urlsplit(origin).netloc.lower() != host.lower():
            raise ApiError(403, "origin", f"Origin: expected this server's own pages, got {origin[:60]!r}")

    def _check_token(self, headers: Headers, basic: bool) -> None:
        expected = self._settings.token
        if expected is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if basic and scheme.lower() == "basic":  # what Label Studio can send; the user's name does not matter
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except ValueError:
                given = ""
        elif scheme.lower() != "bearer":
            given = ""
        if not hmac.compare_digest(given.strip().encode(), expected.encode()):
            raise ApiError(401, "token", "Authorization: expected Bearer and the server's token")


def _host_name(host: str) -> str:
    """The Host header without its port; [::1] without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


class BoundBody:
    """Bodies no larger and no slower than allowed; in both directions.

    Args:
        app: what comes next.
        settings: the limits.
        cap: bytes that a path's body may have.
    """

    def __init__(self, app: ASGIApp, settings: Settings, cap: Callable[[str], int]) -> None:
        self.app, self.limits, self._cap = app, settings.limits, cap
        self.bytes = 0  # of all bodies in flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        cap, limits = self._cap(scope["path"]), self.limits
        length = Headers(scope=scope).get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > cap):
            raise ApiError(413, "too_large", f"body: expected at most {cap} bytes, got {length[:20]}")
        body = _Body(self, cap, time.monotonic() + limits.body_seconds)

        async def receive_bounded() -> Message:
            return await body.receive(receive)

        async def send_bounded(message: Message) -> None:
            if body.error is not None and not body.answered:
                return  # whatever the app makes of a body that broke off
            body.answered = True
            try:
                async with asyncio.timeout(limits.idle_seconds):
                    await send(message)
            except TimeoutError:
                raise ConnectionError("the client does not read the answer") from None

        try:
            await self.app(scope, receive_bounded, send_bounded)
        except ConnectionError as error:
            log.info(str(error), extra={"fields": {"request_id": scope["state"].get("request_id")}})
        except Exception:
            if body.error is None:
                raise
        finally:
            self.bytes -= body.seen
        if body.error is not None and not body.answered:
            raise body.error


class _Body:
    """One request's body on its way in."""

    def __init__(self, bound: BoundBody, cap: int, end: float) -> None:
        self._bound, self._cap, self._end = bound, cap, end
        self.seen = 0
        self._complete = False
        self.error: ApiError | None = None
        self.answered = False

    async def receive(self, receive: Receive) -> Message:
        if self._complete:  # from now on the app only listens for the client to leave
            return await receive()
        if self.error is None:
            try:
                return await self._next(receive)
            except ApiError as error:
                self.error = error
        raise self.error

    async def _next(self, receive: Receive) -> Message:
        limits = self._bound.limits
        try:
            async with asyncio.timeout(min(limits.idle_seconds, self._end - time.monotonic())):
                message = await receive()
        except TimeoutError:
            expected = f"all of it within {limits.body_seconds:g} s, with no pause of {limits.idle_seconds:g} s"
            raise ApiError(408, "slow", f"body: expected {expected}") from None
        size = len(message.get("body", b""))
        self.seen += size
        self._bound.bytes += size
        self._complete = not message.get("more_body", False)
        if self.seen > self._cap:
            raise ApiError(413, "too_large", f"body: expected at most {self._cap} bytes, got more")
        if self._bound.bytes > limits.upload_bytes:
            raise busy(f"{self._bound.bytes} bytes are being uploaded")
        return message
