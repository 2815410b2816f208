"""Queues: turns, shared work, full queues, waiters that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from seem.serving.errors import ApiError
from seem.serving.pools import FairPool


class Gate:
    """Calls that note when they start and end when they are told to."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.open = asyncio.Event()

    def call(self, name: str) -> Callable[[], Awaitable[str]]:
        async def work() -> str:
            self.started.append(name)
            await self.open.wait()
            return name

        return work


def pool(workers: int = 1, queue: int = 10, per_user: int = 10) -> FairPool:
    return FairPool("work", workers, queue, per_user)


async def start(found: FairPool, gate: Gate, *names: str) -> list[asyncio.Task[str]]:
    """Names are "user.number"."""
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(found.run(name.split(".")[0], gate.call(name), 5)))
        await asyncio.sleep(0)
    return tasks


def test_users_take_turns() -> None:
    async def main() -> None:
        gate, found = Gate(), pool()
        tasks = await start(found, gate, "a.1", "a.2", "a.3", "b.1", "c.1", "b.2")
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["a.1", "a.2", "a.3", "b.1", "c.1", "b.2"]
        assert gate.started == ["a.1", "a.2", "b.1", "c.1", "a.3", "b.2"]
        await found.drained()

    asyncio.run(main())


def test_no_more_than_the_workers_run_at_once() -> None:
    async def main() -> None:
        gate, found = Gate(), pool(workers=2)
        tasks = await start(found, gate, "a.1", "b.1", "c.1")
        await asyncio.sleep(0.01)
        assert gate.started == ["a.1", "b.1"]
        assert (found.running, found.waiting) == (2, 1)
        gate.open.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("queue", "per_user", "late", "status"), [(2, 9, "c.1", 503), (9, 1, "a.3", 429), (9, 1, "c.1", None)]
)
def test_a_full_queue_refuses_and_says_when_to_come_back(
    queue: int, per_user: int, late: str, status: int | None
) -> None:
    async def main() -> None:
        gate, found = Gate(), pool(queue=queue, per_user=per_user)
        tasks = await start(found, gate, "a.1", "a.2", "b.1")  # one runs, two wait
        tasks += await start(found, gate, late)
        gate.open.set()
        *others, last = await asyncio.gather(*tasks, return_exceptions=True)
        assert others == ["a.1", "a.2", "b.1"]
        if status is None:
            assert last == late
        else:
            assert isinstance(last, ApiError) and last.status == status and last.retry_after

    asyncio.run(main())


def test_the_same_work_in_flight_is_done_once() -> None:
    async def main() -> None:
        gate, found = Gate(), pool()
        tasks = [asyncio.create_task(found.run(user, gate.call(user), 5, same="photo")) for user in "abc"]
        await asyncio.sleep(0.01)
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["a", "a", "a"]
        assert gate.started == ["a"]
        assert await found.run("d", gate.call("d"), 5, same="photo") == "d"  # it is not in flight any more

    asyncio.run(main())


def test_work_that_nobody_waits_for_does_not_start() -> None:
    async def main() -> None:
        gate, found = Gate(), pool()
        first, second, third = await start(found, gate, "a.1", "b.1", "c.1")
        second.cancel()
        await asyncio.sleep(0.01)
        assert found.waiting == 1
        gate.open.set()
        assert await asyncio.gather(first, third) == ["a.1", "c.1"]
        assert gate.started == ["a.1", "c.1"]

    asyncio.run(main())


def test_one_of_two_waiters_may_leave() -> None:
    async def main() -> None:
        gate, found = Gate(), pool()
        tasks = [asyncio.create_task(found.run(user, gate.call(user), 5, same=1)) for user in "ab"]
        await asyncio.sleep(0.01)
        tasks[0].cancel()
        gate.open.set()
        assert await tasks[1] == "a"

    asyncio.run(main())


def test_time_limit_and_errors() -> None:
    async def main() -> None:
        gate, found = Gate(), pool()
        with pytest.raises(ApiError, match="no result within") as late:
            await found.run("a", gate.call("a"), 0.02)
        assert late.value.status == 503

        async def fail() -> None:
            raise ValueError("bad prompt")

        gate.open.set()
        with pytest.raises(ValueError, match="bad prompt"):
            await found.run("a", fail, 5)
        assert await found.run("a", gate.call("after"), 5) == "after"

    asyncio.run(main())
