"""Bounded work with fair queues: users take turns, identical work in flight is done once, a full queue says so."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from seem.serving.errors import ApiError, busy

T = TypeVar("T")
Call = Callable[[], Awaitable[Any]]


class _Job:
    def __init__(self, call: Call, same: Hashable | None, done: asyncio.Future[Any]) -> None:
        self.call, self.same, self.done = call, same, done
        self.waiters = 0
        self.started = False


class FairPool:
    """At most `workers` calls at once; the others wait, one queue per user, served in turn.

    Args:
        name: of the kind of work, for messages and metrics.
        workers: calls that run at once.
        queue: calls that wait, over all users.
        queue_per_user: of them, those of one user.

    All methods belong to one event loop.
    """

    def __init__(self, name: str, workers: int, queue: int, queue_per_user: int) -> None:
        self.name, self.workers = name, workers
        self._queue, self._queue_per_user = queue, queue_per_user
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._same: dict[Hashable, _Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds = 0.5  # a running mean of what a call takes

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return sum(len(jobs) for jobs in self._waiting.values())

    @property
    def running(self) -> int:
        return len(self._tasks)

    async def run(self, user: str, call: Callable[[], Awaitable[T]], seconds: float, same: Hashable | None = None) -> T:
        """The result of `call`, when it is this user's turn.

        Args:
            user: whose queue it waits in.
            call: started at most once. If every waiter goes away before it starts, it never starts.
            seconds: the longest that the caller waits, in the queue and for the result.
            same: calls with an equal value, while one is in flight, share its result.

        Raises:
            ApiError: 503 if the queue is full or the time is over; 429 if this user's share of it is full.
        """
        job = self._same.get(same) if same is not None else None
        if job is None:
            job = self._enqueue(user, call, same)
        job.waiters += 1
        try:
            async with asyncio.timeout(seconds):
                result: T = await asyncio.shield(job.done)
                return result
        except TimeoutError:
            raise busy(f"{self.name}: no result within {seconds:g} s", self._seconds) from None
        finally:
            job.waiters -= 1
            if not job.waiters and not job.started:
                self._drop(job)

    def _enqueue(self, user: str, call: Call, same: Hashable | None) -> _Job:
        retry = self._seconds * (self.waiting + 1) / self.workers
        mine = self._waiting.get(user)
        if mine is not None and len(mine) >= self._queue_per_user:
            raise ApiError(429, "too_many", f"{self.name}: {len(mine)} of your requests are waiting already", retry)
        if self.waiting >= self._queue:
            raise busy(f"{self.name}: {self.waiting} requests are waiting", retry)
        job = _Job(call, same, asyncio.get_running_loop().create_future())
        if same is not None:
            self._same[same] = job
        self._waiting.setdefault(user, deque()).append(job)
        self._start()
        return job

    def _drop(self, job: _Job) -> None:
        for user, jobs in self._waiting.items():
            if job in jobs:
                jobs.remove(job)
                if not jobs:
                    del self._waiting[user]
                break
        self._forget(job)
        job.done.cancel()

    def _forget(self, job: _Job) -> None:
        if job.same is not None and self._same.get(job.same) is job:
            del self._same[job.same]

    def _start(self) -> None:
        while self._waiting and len(self._tasks) < self.workers:
            user, jobs = self._waiting.popitem(last=False)
            job = jobs.popleft()
            if jobs:
                self._waiting[user] = jobs  # behind all others: they take turns
            job.started = True
            task = asyncio.get_running_loop().create_task(self._work(job))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start()

    async def _work(self, job: _Job) -> None:
        began = time.monotonic()
        try:
            result = await job.call()
        except BaseException as error:
            if not job.done.done():
                job.done.set_exception(error)
                job.done.exception()  # nobody may be waiting any more
            if not isinstance(error, Exception):
                raise
        else:
            if not job.done.done():
                job.done.set_result(result)
        finally:
            self._forget(job)
            self._seconds += 0.2 * (time.monotonic() - began - self._seconds)

    async def drained(self) -> None:
        """Returns when nothing waits and nothing runs."""
        while self._tasks or self._waiting:
            await asyncio.sleep(0.02)
