"""Where the work is done: in this process, or in others. `create_app` takes either."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seem.serving.worker import Encoded, Worker

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.tiles import Window
    from seem.serving.settings import Settings

log = logging.getLogger("seem.serving")


class Engine(Protocol):
    """What the app asks of a model that may be anywhere."""

    async def about(self) -> dict[str, Any]:
        """{"model", "weights", "own_names"}; returns when the model is ready."""

    async def encode(self, data: bytes, max_pixels: int) -> Encoded: ...

    async def encode_window(self, data: bytes, max_pixels: int, window: Window) -> bytes:
        """`Worker.encode_window`, where photos are encoded."""

    def share(self, scene: bytes) -> Any:
        """A scene as `call` wants it, so that it need not travel each time."""

    async def call(self, operation: str, *args: Any) -> Any:
        """A method of `Worker`."""

    def track(
        self, path: Path, prompts: Mapping[int, Mapping[int, Sequence[Any]]], scenes: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """`Worker.track`, a frame at a time; closing it stops the work."""

    async def decoder_files(self) -> dict[str, Path]:
        """The decoder for browsers, by file name; empty if it cannot be made."""

    def close(self) -> None: ...


class LocalEngine:
    """The model in this process; its work is done in threads, and torch leaves the interpreter free meanwhile."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.worker = Worker(model, settings.limits.hot_scenes)
        threads = settings.encode_workers + settings.decode_workers + 2 * settings.heavy_workers
        self._threads = ThreadPoolExecutor(threads, "seem")
        self._files: dict[str, Path] | None = None

    async def about(self) -> dict[str, Any]:
        return about(self.worker.model)

    async def encode(self, data: bytes, max_pixels: int) -> Encoded:
        return await self.call("encode", data, max_pixels)

    async def encode_window(self, data: bytes, max_pixels: int, window: Window) -> bytes:
        return await self.call("encode_window", data, max_pixels, window)

    def share(self, scene: bytes) -> Any:
        return scene

    async def call(self, operation: str, *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, getattr(self.worker, operation), *args)

    async def track(
        self, path: Path, prompts: Mapping[int, Mapping[int, Sequence[Any]]], scenes: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        frames = await self.call("track", str(path), prompts, scenes)
        loop = asyncio.get_running_loop()
        lock = threading.Lock()  # a generator cannot be closed while it runs

        def step() -> Any:
            with lock:
                return next(frames, None)

        def close() -> None:
            with lock:
                frames.close()

        try:
            while (found := await loop.run_in_executor(self._threads, step)) is not None:
                yield found
        finally:
            self._threads.submit(close)

    async def decoder_files(self) -> dict[str, Path]:
        if self._files is None:
            loop = asyncio.get_running_loop()
            self._files = await loop.run_in_executor(None, decoder_files, self.worker.model)
        return self._files

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def about(model: Model) -> dict[str, Any]:
    """What clients are told of a model."""
    names = tuple(getattr(model.network, "own_names", ()))
    return {"model": model.name, "weights": model.weights, "own_names": names}


def decoder_files(model: Model) -> dict[str, Path]:
    """The decoder for browsers of a model, by file name, made once; empty, with a line in the log, if it cannot be.

    Then pages ask the server instead, so nothing that goes wrong here may stop it.
    """
    try:
        from seem.export import decoder_files as make

        return dict(make(model, apart=True))
    except Exception as error:
        log.warning("no decoder for browsers", extra={"fields": {"why": f"{type(error).__name__}: {error}"[:300]}})
        return {}
