"""Many users of one server on loopback: is memory bounded, is 503 the only error, does anybody see another's scene?

    python -m benchmarks.load --users 50 --seconds 120

Starts `seem serve` with the shipped weights in a process of its own (or takes --url) and prints one JSON document.
An image that the server dropped for room is counted as "image_gone" and sent again; with enough --memory there is none.
Every user opens a session, uploads an own photo now and then, clicks on it, corrects the click with memory, asks for
its scene, and tries to reach the last photo of another user, which must not be found. Exit code 1 if a check fails.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from seem.geometry import rle_decode

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
CLICKS = 8  # rounds on a photo before the next upload
BUSY = (429, 503)


@dataclass
class Report:
    """What happened so far."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)  # checks that failed
    photos: dict[int, str] = field(default_factory=dict)  # the last photo of each user
    memory: list[float] = field(default_factory=list)  # MB of the server, once a second


class User:
    """One user; photos are own ones by their noise, so a digest tells whose it is."""

    def __init__(self, number: int, url: str, token: str | None, report: Report, side: int) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.http = httpx.AsyncClient(base_url=url, timeout=120, headers=headers)
        self.number, self.report = number, report
        self.rng = np.random.default_rng(number)
        names = sorted(PHOTOS.glob("*.jpg"))
        with Image.open(names[number % len(names)]) as photo:
            photo.thumbnail((side, side))
            self.photo = np.asarray(photo.convert("RGB"))
        self.image, self.size, self.clicks = "", (0, 0), 0

    async def run(self, end: float) -> None:
        async with self.http:
            while time.monotonic() < end and not await self.step("session", "POST", "/v1/sessions"):
                pass
            while time.monotonic() < end:
                if not self.image or self.clicks >= CLICKS:
                    await self.upload()
                else:
                    await self.look()
                await asyncio.sleep(float(self.rng.exponential(0.5)))  # people think

    async def step(self, name: str, method: str, path: str, **options: Any) -> httpx.Response | None:
        """A request; None, after waiting as told, if the server is busy."""
        began = time.monotonic()
        try:
            answer = await self.http.request(method, path, **options)
        except httpx.HTTPError as error:
            self.report.statuses[f"{name} {type(error).__name__}"] += 1
            self.report.broken.append(f"user {self.number}: {name}: {type(error).__name__}")
            return None
        gone = answer.status_code == 404 and "image_gone" in answer.text
        self.report.statuses["image_gone" if gone else f"{name} {answer.status_code}"] += 1
        if answer.status_code in BUSY:
            if not answer.headers.get("retry-after", "").isdigit():
                self.report.broken.append(f"{name}: {answer.status_code} without Retry-After")
            await asyncio.sleep(min(5.0, float(answer.headers.get("retry-after", 1))))
            return None
        if answer.is_success:
            self.report.seconds.setdefault(name, []).append(time.monotonic() - began)
            if name == "session":
                self.http.headers["X-Seem-Session"] = answer.json()["session"]
        elif gone:
            self.image = ""  # there was no room for it: it has to be sent again
        elif name != "stranger":
            self.report.broken.append(f"user {self.number}: {name}: {answer.status_code} {answer.text[:100]}")
        return answer

    async def upload(self) -> None:
        noise = self.rng.integers(-4, 5, self.photo.shape)
        buffer = io.BytesIO()
        Image.fromarray((self.photo.astype(np.int16) + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
        headers = {"Content-Type": "image/jpeg"}
        answer = await self.step("encode", "POST", "/v1/images", content=buffer.getvalue(), headers=headers)
        if answer is not None and answer.is_success:
            found = answer.json()
            self.image, self.size, self.clicks = found["image"], (found["width"], found["height"]), 0
            self.report.photos[self.number] = self.image

    async def look(self) -> None:
        """A click, a second round with memory, the scene, and somebody else's photo."""
        width, height = self.size
        x, y = self.rng.integers(width), self.rng.integers(height)
        prompts = [{"type": "click", "x": int(x), "y": int(y)}]
        body = {"objects": [{"id": 1, "prompts": prompts}]}
        answer = await self.step("click", "POST", f"/v1/images/{self.image}/segment", json=body)
        self.clicks += 1
        if answer is None or not answer.is_success:
            return
        found = answer.json()["segments"][0]
        if rle_decode(found["mask_rle"]).shape != (height, width):
            self.report.broken.append(f"user {self.number}: a mask of another photo")
        corrected = [*prompts, {"type": "click", "x": int(self.rng.integers(width)), "y": 0, "positive": False}]
        body = {"objects": [{"id": 1, "prompts": corrected, "previous": {"rle": found["mask_rle"]}}]}
        if found["area"]:
            await self.step("round", "POST", f"/v1/images/{self.image}/segment", json=body)
        if self.clicks == 1 and self.image:
            await self.fetch_scene()
        others = [p for u, p in self.report.photos.items() if u != self.number]
        if others and self.clicks % 2 == 1:
            theirs = others[int(self.rng.integers(len(others)))]
            path = f"/v1/images/{theirs}/{'scene' if self.clicks % 4 == 1 else 'picture'}"
            answer = await self.step("stranger", "GET", path)
            if answer is not None and answer.status_code != 404:
                self.report.broken.append(f"user {self.number} saw the photo of another: {answer.status_code}")

    async def fetch_scene(self) -> None:
        answer = await self.step("scene", "GET", f"/v1/images/{self.image}/scene")
        if answer is not None and answer.is_success and self.image.encode() not in answer.content[:2000]:
            self.report.broken.append(f"user {self.number}: the scene of another photo")


async def drive(
    url: str, users: int, seconds: float, token: str | None = None, pid: int | None = None, side: int = 4096
) -> Report:
    """All users until the time is over; their photos' sides are at most so many pixels."""
    report = Report()
    end = time.monotonic() + seconds

    async def watch() -> None:
        while pid is not None and time.monotonic() < end:
            report.memory.append(resident_mb(pid))
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *(User(i, url, token, report, side).run(end) for i in range(users)))
    return report


def resident_mb(pid: int) -> float:
    """MB of memory that a process holds (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0 kB")
    return int(line.split()[1]) / 1024


def summary(report: Report, users: int, seconds: float, limit_mb: float | None) -> dict[str, Any]:
    """The report as JSON, with what failed."""
    times = {
        name: {"n": len(v), "median": round(float(np.median(v)), 3), "p95": round(float(np.quantile(v, 0.95)), 3)}
        for name, v in sorted(report.seconds.items())
    }
    broken = list(report.broken)
    memory: dict[str, Any] = {}
    if report.memory:
        marks = [report.memory[round(share * (len(report.memory) - 1) / 4)] for share in range(5)]
        memory = {"quarters_mb": [round(m) for m in marks], "largest_mb": round(max(report.memory))}
        if limit_mb is not None and max(report.memory) > limit_mb:
            broken.append(f"memory: {max(report.memory):.0f} MB, more than {limit_mb:.0f}")
    if not report.seconds.get("round"):
        broken.append("nobody got as far as a second round")
    return {
        "users": users,
        "seconds": seconds,
        "answers": dict(sorted(report.statuses.items())),
        "seconds_per_answer": times,
        "memory": memory,
        "failed_checks": broken[:20],
        "failed": len(broken),
    }


def start_server(options: list[str]) -> tuple[subprocess.Popen[bytes], str]:
    """`seem serve` on a free port, ready."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "seem", "serve", "--port", str(port), *options]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=dict(os.environ))
    url = f"http://127.0.0.1:{port}"
    for _ in range(1200):
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}")
        try:
            if httpx.get(f"{url}/health/ready").is_success:
                return server, url
        except httpx.HTTPError:
            pass
        time.sleep(0.25)
    server.kill()
    raise RuntimeError("the server did not get ready")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--url", help="a server that runs already, instead of one of its own")
    parser.add_argument("--token")
    parser.add_argument("--memory", type=int, default=256, help="MB that the server may keep for images (its --memory)")
    parser.add_argument("--limit-mb", type=float, help="fail if the server's memory exceeds it")
    args = parser.parse_args()
    server, url = None, args.url
    if url is None:
        server, url = start_server(["--memory", str(args.memory)])
    try:
        pid = None if server is None else server.pid
        report = asyncio.run(drive(url, args.users, args.seconds, args.token, pid))
        if server is not None and server.poll() is not None:
            report.broken.append(f"the server ended with {server.returncode}")
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    found = summary(report, args.users, args.seconds, args.limit_mb)
    print(json.dumps(found, indent=1))
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
