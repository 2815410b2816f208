"""The engine of one machine: photos are read ahead by threads, the model works on one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from seem.batch.job import Item, Row
from seem.batch.worker import Loaded, Worker

READERS, AHEAD = 4, 8  # threads that read, and photos in memory at most
LARGE_AHEAD = 1  # where a photo may take gigabytes


def run_local(worker: Worker, items: Iterable[Item]) -> Iterator[Row]:
    """Results in the order of the items."""
    queue = iter(items)
    ahead = AHEAD if worker.job.tiles is None else LARGE_AHEAD
    with ThreadPoolExecutor(READERS, "seem-read") as pool:
        waiting: deque[Future[Loaded]] = deque(pool.submit(worker.load, item) for item in islice(queue, ahead))
        try:
            while waiting:
                loaded = waiting.popleft().result()
                for item in islice(queue, 1):
                    waiting.append(pool.submit(worker.load, item))
                yield worker.work(loaded)
        finally:
            for future in waiting:
                future.cancel()
