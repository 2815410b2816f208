"""uvicorn with what it lacks: a limit on how slowly a request's head may arrive, and an end that lets others know."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from seem.serving.middleware import JsonLines

if TYPE_CHECKING:
    from fastapi import FastAPI

    from seem.serving.settings import Settings
    from seem.serving.state import State

MAX_HEAD = 32 << 10  # bytes of a request's head
CONNECTIONS_PER_REQUEST = 4  # open connections, as a multiple of requests in flight, beyond which new ones get a 503


def protocol(head_seconds: float) -> type[H11Protocol]:
    """An HTTP protocol that closes a connection whose request does not get to the end of its head in time."""

    class PromptHead(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._arm()

        def data_received(self, data: bytes) -> None:
            if self._deadline is None and self.conn.their_state is h11.IDLE:
                self._arm()  # the next request of a kept connection begins
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._disarm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _arm(self) -> None:
            self._deadline = self.loop.call_later(head_seconds, self._late)

        def _disarm(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _late(self) -> None:
            self._deadline = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return PromptHead


class Server(uvicorn.Server):
    """Ends on SIGTERM and SIGINT when the requests in flight are answered; from then on it is not ready.

    A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        drain = self._state.drain
        if drain.draining:
            self.should_exit = self.force_exit = True
            return
        drain.draining = True
        self._captured_signals.append(sig)

    async def on_tick(self, counter: int) -> bool:
        ended = await super().on_tick(counter)
        drain = self._state.drain
        if drain.draining:
            self._left -= 0.1  # the time between two ticks
            ended = ended or drain.in_flight == 0 or self._left <= 0
        return ended

    async def main_loop(self) -> None:
        self._left = self._state.settings.drain_seconds
        await super().main_loop()


def make_server(app: FastAPI, settings: Settings) -> Server:
    """A server for an app of `create_app`."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol(settings.limits.head_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=settings.limits.requests * CONNECTIONS_PER_REQUEST,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    return Server(config, app.state.seem)


def serve(app: FastAPI, settings: Settings) -> None:
    """Runs until a signal."""
    server = make_server(app, settings)
    server.run()
    if signal.SIGINT in server._captured_signals:
        raise KeyboardInterrupt


def log_to_stderr(level: int = logging.INFO) -> None:
    """Every line of the log as JSON on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("seem.serving", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
