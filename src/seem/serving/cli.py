"""`seem serve`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from seem.options import DEFAULT_MODEL, DeviceOption, InputError, ModelOption, load_model

serve_app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

TOKEN = "SEEM_TOKEN"
LABEL_STUDIO_TOKEN = "LABEL_STUDIO_TOKEN"
MB = 1 << 20


@serve_app.command()
def serve(
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token: Annotated[
        str | None, typer.Option(help=f"Ask for this bearer token. Better: set {TOKEN}, which nobody sees.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="A web origin whose pages may call; none by default.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name in the Host header. Default: this machine, or all with --host."),
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: encoder and decoder as deployments of their own.")] = (
        "local"
    ),
    encoders: Annotated[int, typer.Option(min=1, help="Encodes at once; with ray, replicas.")] = 1,
    decoders: Annotated[int, typer.Option(min=1, help="Decodes at once; with ray, replicas.")] = 2,
    memory: Annotated[int, typer.Option(min=16, metavar="MB", help="For encoded images.")] = 1024,
    session_minutes: Annotated[int, typer.Option(min=1, help="An unused session ends after it.")] = 60,
    max_sessions: Annotated[int, typer.Option(min=1, help="Sessions at once.")] = 500,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests that may wait for each kind of work.")] = 64,
    max_body: Annotated[int, typer.Option(min=1, metavar="MB", help="Of an uploaded photo.")] = 32,
    max_pixels: Annotated[int, typer.Option(min=1, metavar="MILLIONS", help="Of an uploaded photo.")] = 50,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of one encode or decode.")] = None,
    replica_cpus: Annotated[float, typer.Option(min=0, help="CPUs that Ray sets aside for a replica.")] = 0.5,
    replica_gpus: Annotated[float, typer.Option(min=0, help="GPUs that Ray sets aside for a replica.")] = 0,
    drain: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="For running requests after SIGTERM.")] = 30,
    label_studio: Annotated[
        str | None,
        typer.Option(metavar="URL", help=f"Be the ML backend of this Label Studio; its token in {LABEL_STUDIO_TOKEN}."),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
) -> None:
    """Serve a model over HTTP, with the page at / and the API under /v1.

    \b
    Examples:
      seem serve
      SEEM_TOKEN=secret seem serve --host 0.0.0.0 --port 8080 --max-queue 128
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"seem serve needs the package {error.name}: pip install 'seem-segment[serve]'") from None
    from seem.serving.settings import Limits, Settings

    if engine not in ("local", "ray"):
        raise InputError(f"--engine: expected local or ray, got {engine}")
    limits = replace(
        Limits(),
        memory_bytes=memory * MB,
        window_bytes=memory * MB // 4,
        session_seconds=session_minutes * 60,
        sessions=max_sessions,
        queue=max_queue,
        body_bytes=max_body * MB,
        pixels=max_pixels * 1_000_000,
    )
    settings = Settings(
        host=host,
        port=port,
        token=token or os.environ.get(TOKEN) or None,
        origins=tuple(_origin(value) for value in cors_origin or []),
        hosts=None if allowed_host is None else tuple(name.lower() for name in allowed_host),
        encode_workers=encoders,
        decode_workers=decoders,
        drain_seconds=drain,
        label_studio=None if label_studio is None else _address(label_studio),
        label_studio_token=os.environ.get(LABEL_STUDIO_TOKEN) or None,
        limits=limits,
    )
    if engine == "ray":
        try:
            import ray  # noqa: F401
        except ImportError:
            raise InputError("--engine ray needs the package ray: pip install 'seem-segment[serve,ray]'") from None
        from seem.checkpoints.registry import MODELS
        from seem.serving.ray_serve import run_ray

        if model not in MODELS and not Path(model).is_file():
            raise InputError(f"--model: expected one of {', '.join(MODELS)} or a weights file, got {model}")

        run_ray(settings, model, device, threads, replica_cpus, replica_gpus)
        return
    from seem.serving.app import create_app
    from seem.serving.engines import LocalEngine
    from seem.serving.server import log_to_stderr
    from seem.serving.server import serve as run

    loaded = load_model(model, device)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    log_to_stderr()
    run(create_app(LocalEngine(loaded, settings), settings), settings)


def _origin(value: str) -> str:
    """A web origin: a scheme, a host, perhaps a port, and nothing after it."""
    from urllib.parse import urlsplit

    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
        raise InputError(f"--cors-origin: expected https://host, got {value}")
    return value


def _address(value: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"--label-studio: expected http://host, got {value}")
    return value.rstrip("/")
