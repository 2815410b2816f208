"""Run `seem batch` again and again, and kill it with SIGKILL at random moments until a run lives to its end.

    python -m tests.batch.killed SEED ARGUMENTS…

torch is imported once; each run is a fork. Prints how many runs were killed in the middle.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import torch

import seem
from seem.batch import worker
from seem.cli import main
from seem.predict.model import Model
from tests.fakes import WEIGHTS, FakeNetwork

PHOTO_SECONDS = 0.01  # that a photo takes at least


class SlowNetwork(FakeNetwork):
    def decode(self, *args):  # type: ignore[no-untyped-def]
        time.sleep(PHOTO_SECONDS)
        return super().decode(*args)


def run(arguments: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        seem.load = lambda name, device="auto": Model(SlowNetwork(), WEIGHTS)  # type: ignore[assignment,arg-type]
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os._exit(main(["batch", *arguments]))
    return pid


def kill_until_done(seed: int, arguments: list[str]) -> int:
    torch.set_num_threads(1)
    assert worker  # imported before the first fork
    draw = random.Random(seed)
    killed = 0
    while True:
        pid = run(arguments)
        time.sleep(draw.uniform(0.01, 0.25))
        if killed < 12:  # however slow the machine is, it ends
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            return killed
        killed += 1


if __name__ == "__main__":
    print(kill_until_done(int(sys.argv[1]), sys.argv[2:]))
