"""SEEM over HTTP: `seem serve`, its Python client, and the same app on Ray Serve.

    >>> from seem.serving import Client
    >>> client = Client("http://127.0.0.1:8000")                           # doctest: +SKIP
    >>> scene = client.encode("photo.jpg")                                 # doctest: +SKIP
    >>> scene.segment(seem.Click(320, 200)).mask.shape                     # doctest: +SKIP

The server needs the extra `serve`; the client only httpx. Names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_EXPORTS = {
    "Client": "seem.serving.client",
    "ServerError": "seem.serving.client",
    "Settings": "seem.serving.settings",
    "create_app": "seem.serving.app",
}

if TYPE_CHECKING:
    from seem.serving.app import create_app as create_app
    from seem.serving.client import Client as Client
    from seem.serving.client import ServerError as ServerError
    from seem.serving.settings import Settings as Settings

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> object:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'seem.serving' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
