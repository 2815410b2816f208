"""The HTTP app: what `seem serve` runs, and what Ray Serve runs. docs/serving.md describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response

from seem import __version__
from seem.serving import routes_export, routes_images, routes_model, routes_videos
from seem.serving.errors import ApiError, error_json
from seem.serving.metrics import Metrics
from seem.serving.middleware import BoundBody, Drain, Guard, Observe
from seem.serving.page import page_file
from seem.serving.settings import Settings
from seem.serving.state import State

if TYPE_CHECKING:
    from seem.serving.engines import Engine

_CODES = {404: "not_found", 405: "method", 413: "too_large", 415: "media_type"}


def create_app(engine: Engine, settings: Settings | None = None) -> FastAPI:
    """The whole server around a model.

    Args:
        engine: `LocalEngine(model, settings)`, or one that asks other processes.
        settings: caps, the token, …

    Example:
        >>> app = create_app(LocalEngine(seem.load(), Settings()))         # doctest: +SKIP
    """
    settings = settings or Settings()
    metrics, drain = Metrics(), Drain()
    state = State(engine, settings, metrics, drain)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(state.load())
        sweeping = asyncio.create_task(state.sweep())
        yield
        for task in (loading, sweeping):
            task.cancel()
        state.close()

    app = FastAPI(
        title="SEEM",
        version=__version__,
        summary="Segment anything in a photo from clicks, boxes, scribbles, polygons, masks, text and other photos.",
        lifespan=lifespan,
        docs_url=None,  # these pages would load scripts from elsewhere; /openapi.json is there
        redoc_url=None,
    )
    app.state.seem = state
    _add_health(app, state)
    for routes in (routes_model, routes_images, routes_export, routes_videos):
        app.include_router(routes.router)
    if settings.label_studio is not None:
        from seem.serving import label_studio

        app.include_router(label_studio.router)
    _add_page(app)
    _add_errors(app)
    limits = settings.limits

    def cap(path: str) -> int:
        if path == "/v1/images":
            return limits.body_bytes
        return limits.video_bytes if path == "/v1/videos" else limits.json_bytes

    app.add_middleware(BoundBody, settings=settings, cap=cap)
    app.add_middleware(Guard, settings=settings, drain=drain)
    if settings.origins:
        headers = ["Authorization", "Content-Type", "X-Seem-Session", "X-Request-Id", "If-None-Match"]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=headers,
            expose_headers=["X-Request-Id", "Retry-After", "ETag", "Content-Disposition"],
        )
    app.add_middleware(Observe, metrics=metrics, origins=settings.origins)
    return app


def _add_health(app: FastAPI, state: State) -> None:
    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/health/ready", tags=["health"])
    async def ready() -> Response:
        """200 when the model is loaded and the server is not about to end, else 503."""
        if state.drain.draining or not state.ready:
            why = "draining" if state.drain.draining else state.why
            return JSONResponse({"status": why}, 503, {"Retry-After": "1"})
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    @app.get("/{path:path}", include_in_schema=False)
    async def page(path: str) -> Response:
        return page_file(path)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "bad_request")
        return JSONResponse(error_json(code, str(error.detail)), error.status_code, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse(error_json(*_first(error)), 400 if _broken(error) else 422)


def _broken(error: RequestValidationError) -> bool:
    return any(e["type"] == "json_invalid" for e in error.errors())


def _first(error: RequestValidationError) -> tuple[str, str]:
    """The first thing that is wrong, without repeating what was sent."""
    first: dict[str, Any] = error.errors()[0]
    if _broken(error):
        return "bad_json", "body: expected JSON"
    where = ".".join(str(part)[:40] for part in first["loc"] if part not in ("body", "query", "path"))
    return "invalid", f"{where or 'body'}: {first['msg']}"
