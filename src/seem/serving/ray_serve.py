"""The same app with its work on Ray Serve: encoder and decoder are deployments of their own, which scale apart.

    seem serve --engine ray --encoders 4 --decoders 2

HTTP, sessions and queues stay in this process, with everything that guards them; only work goes to the replicas,
which may be on other machines. An encoded scene goes into Ray's object store once, as the bytes that a browser also
gets; a decoder replica fetches it when it first needs it and keeps it ready.

Without RAY_ADDRESS a Ray of its own is started on this machine, reachable from it alone.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import serve
from ray.exceptions import RayTaskError

from seem.serving.engines import about, decoder_files
from seem.serving.settings import Settings
from seem.serving.worker import Encoded, Worker

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from seem.predict.tiles import Window

APP = "seem"
ONGOING = 8  # requests that a replica holds; this process's queues let through fewer


class Replica:
    """A model in a process of its own. Encoders and decoders are the same class, deployed and scaled apart.

    Args:
        model, device: as `seem.load` takes them; a weights file has to be on the replica's machine.
        threads: CPU threads of torch, or None for its own choice.
        hot_scenes: scenes kept ready.
    """

    def __init__(self, model: str, device: str, threads: int | None, hot_scenes: int) -> None:
        import seem

        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self._worker = Worker(seem.load(model, device=device), hot_scenes, fetch=_fetch)

    async def about(self) -> dict[str, Any]:
        return about(self._worker.model)

    async def call(self, operation: str, *args: Any) -> Any:
        """A method of `Worker`, in a thread: a click does not wait for another one's panoptic segmentation."""
        return await asyncio.to_thread(getattr(self._worker, operation), *args)

    async def track(self, video: bytes, suffix: str, prompts: Any, scenes: Any) -> AsyncGenerator[Any, None]:
        """`Worker.track` of a video's bytes."""
        with tempfile.TemporaryDirectory(prefix="seem-video-") as folder:
            path = Path(folder) / f"video{suffix}"
            await asyncio.to_thread(path.write_bytes, video)
            frames: Iterator[Any] = await self.call("track", str(path), prompts, scenes)
            while (found := await asyncio.to_thread(next, frames, None)) is not None:
                yield found

    async def files(self) -> dict[str, bytes]:
        """The decoder for browsers."""
        found = await asyncio.to_thread(decoder_files, self._worker.model)
        return {name: path.read_bytes() for name, path in found.items()}


def _fetch(reference: Any) -> bytes:
    data: bytes = ray.get(reference)
    return data


class RayEngine:
    """An `Engine` whose work is done by deployments.

    Args:
        encoder, decoder: handles of the two.
    """

    def __init__(self, encoder: DeploymentHandle[Any], decoder: DeploymentHandle[Any]) -> None:
        self._encoder, self._decoder = encoder, decoder
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def about(self) -> dict[str, Any]:
        await _answer(self._encoder.about.remote())  # both have to be there
        found: dict[str, Any] = await _answer(self._decoder.about.remote())
        return found

    async def encode(self, data: bytes, max_pixels: int) -> Encoded:
        found: Encoded = await _answer(self._encoder.call.remote("encode", data, max_pixels))
        return found

    async def encode_window(self, data: bytes, max_pixels: int, window: Window) -> bytes:
        found: bytes = await _answer(self._encoder.call.remote("encode_window", data, max_pixels, window))
        return found

    def share(self, scene: bytes) -> Any:
        return ray.put(scene)

    async def call(self, operation: str, *args: Any) -> Any:
        return await _answer(self._decoder.call.remote(operation, *args))

    async def track(
        self, path: Path, prompts: Mapping[int, Mapping[int, Sequence[Any]]], scenes: Mapping[str, Any]
    ) -> AsyncGenerator[Any, None]:
        video = await asyncio.to_thread(path.read_bytes)
        frames: Any = self._encoder.options(stream=True).track.remote(video, path.suffix, prompts, dict(scenes))
        try:
            async for segments in frames:
                yield segments
        except RayTaskError as error:
            raise error.cause from None
        finally:
            frames.cancel()

    async def decoder_files(self) -> dict[str, Path]:
        found = await _answer(self._decoder.files.remote())
        self._folder = tempfile.TemporaryDirectory(prefix="seem-decoder-")
        paths = {name: Path(self._folder.name) / name for name in found}
        for name, data in found.items():
            paths[name].write_bytes(data)
        return paths

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()


async def _answer(response: Any) -> Any:
    """A response's value; what went wrong in the replica comes out as it was raised there."""
    try:
        return await response
    except RayTaskError as error:
        raise error.cause from None


def start(settings: Settings, model: str, device: str, threads: int | None, cpus: float, gpus: float) -> RayEngine:
    """Deploys both parts and waits until they are there.

    Args:
        settings: `encode_workers` and `decode_workers` are the numbers of replicas.
        model, device, threads: of each replica.
        cpus, gpus: that Ray sets aside for a replica.
    """
    if not ray.is_initialized():
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False)
        else:
            ray.init(include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    serve.start(proxy_location="Disabled")
    handles = []
    for name, replicas in (("encoder", settings.encode_workers), ("decoder", settings.decode_workers)):
        deploy = serve.deployment(
            name=name,
            num_replicas=replicas,
            max_ongoing_requests=ONGOING,
            ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        )
        bound = deploy(Replica).bind(model, device, threads, settings.limits.hot_scenes)
        handles.append(serve.run(bound, name=f"{APP}-{name}", route_prefix=None))
    return RayEngine(*handles)


def stop() -> None:
    """Takes both parts down; other apps of the same cluster stay."""
    for name in ("encoder", "decoder"):
        serve.delete(f"{APP}-{name}")


def run_ray(settings: Settings, model: str, device: str, threads: int | None, cpus: float, gpus: float) -> None:
    """`seem serve --engine ray`: runs until a signal."""
    from seem.serving.app import create_app
    from seem.serving.server import log_to_stderr
    from seem.serving.server import serve as run

    engine = start(settings, model, device, threads, cpus, gpus)
    log_to_stderr()
    try:
        run(create_app(engine, settings), settings)
    finally:
        stop()
