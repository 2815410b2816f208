"""Everything that goes wrong is answered with {"error": {"code", "message"}}."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse


class ApiError(Exception):
    """An answer with a 4xx or 5xx status.

    Attributes:
        status: of HTTP.
        code: one word for programs.
        message: one line for people.
        retry_after: seconds, with 429 and 503.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        if self.status in (408, 413):
            headers["Connection"] = "close"  # the rest of the body is not read
        return JSONResponse(error_json(self.code, self.message), self.status, headers)


def error_json(code: str, message: str) -> dict[str, Any]:
    """{"error": {"code", "message"}}, the message on one line of at most 500 characters, always valid UTF-8."""
    line = " ".join(message.split()).encode("utf-8", "replace").decode()
    return {"error": {"code": code, "message": line[:500]}}


def invalid(message: str) -> ApiError:
    """The request is well-formed, but what it asks is not possible."""
    return ApiError(422, "invalid", message)


def not_found(message: str) -> ApiError:
    return ApiError(404, "not_found", message)


def busy(message: str, retry_after: float = 1.0) -> ApiError:
    return ApiError(503, "busy", message, retry_after)
