"""The load test, short: on the network that segments by colour, so that the server's own part is what is loaded."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.load import drive, summary
from tests.serving.conftest import running


@pytest.mark.slow
def test_many_users_small_room() -> None:
    """Queues, sessions and memory too small for all: busy answers, and nothing else that is not a result."""
    with running(queue=3, queue_per_session=1, memory_bytes=60_000, round_bytes=20_000, hot_scenes=4) as server:
        report = asyncio.run(drive(server.url, users=12, seconds=8, side=80))
        images = server.state.sessions.images
        assert images.bytes <= 60_000
        assert len(server.state.engine.worker._scenes) <= 4  # type: ignore[attr-defined]
        assert server.state.drain.in_flight == 0
    found = summary(report, 12, 8, None)
    assert found["failed_checks"] == []
    assert report.statuses["stranger 404"] > 0
    assert report.statuses["image_gone"] > 0 and report.statuses["encode 503"] > 0
    good = {"session 201", "encode 200", "click 200", "round 200", "scene 200", "stranger 404", "image_gone"}
    busy = {s for s in report.statuses if s.endswith((" 503", " 429"))}
    assert set(report.statuses) <= good | busy
