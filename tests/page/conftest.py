"""The real page in a real Chromium, from a real server with the shipped model."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
sync_api = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("SEEM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
]
SECONDS = 120_000  # milliseconds that anything may take on a loaded machine


class Server:
    """`seem serve` in a process of its own, on one port, which can be stopped and started again."""

    def __init__(self, folder: Path, token: str | None = None) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._token = token
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "2"}
        if self._token is not None:
            env["SEEM_TOKEN"] = self._token
        command = [sys.executable, "-m", "seem", "serve", "--port", str(self.port), "--drain", "1"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=ROOT)
        end = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(self.url + "/health/ready", timeout=5):
                    return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < end, self._log.read_text()[-2000:]
                time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs chromium (apt-get install chromium), or its path in SEEM_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def shared_page(server: Server, browser: Any) -> Iterator[Seem]:
    """One tab for many tests: starting the decoder takes longer than a test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True, locale="en-US")
    page = Seem(context.new_page(), server.url)
    page.open()
    yield page
    context.close()


@pytest.fixture
def page(shared_page: Seem) -> Iterator[Seem]:
    """The shared tab with an empty project. What the browser complained of fails the test."""
    shared_page.complaints.clear()
    shared_page.empty()
    yield shared_page
    assert not shared_page.complaints


class Seem:
    """The page as a user sees it: everything goes through what can be clicked, dragged, typed and downloaded."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda m: self.complaints.append(m.text) if "Content Security Policy" in m.text else None)
        page.on("dialog", lambda dialog: dialog.accept())

    def open(self, query: str = "") -> None:
        self.page.goto(self.url + "/" + query)
        self.page.wait_for_selector("[data-backend=server]" if query else "[data-backend]:not([data-backend=server])")

    def get(self, name: str) -> Any:
        return self.page.get_by_test_id(name)

    # ---- photos ---------------------------------------------------------------------------------------------------

    def empty(self) -> None:
        """Removes every photo, and takes up the first tool."""
        self.page.keyboard.press("Escape")
        if self.get("tool-click").count():
            self.tool("click")
        while self.page.locator(".thumb").count():
            self.page.locator(".thumb").first.hover()
            self.page.locator(".thumb-close").first.click()
        self.page.wait_for_selector("[data-testid^=sample-]")  # the first page is back, before anybody asks for it

    def sample(self, name: str) -> None:
        if self.get(f"sample-{name}").count():
            self.get(f"sample-{name}").click()
        else:
            self.get("add").click()
            self.page.get_by_role("button", name=name.capitalize(), exact=True).click()
        self.settle()
        self.tool("click")

    def settle(self, zoomed: bool = True) -> None:
        """Waits until the photo is ready and no prompt waits for its mask, nor for one from close up."""
        close = "[data-zooming=false]" if zoomed else ""
        self.page.wait_for_selector(f"canvas[data-testid=stage][data-view][aria-busy=false]{close}")

    # ---- the stage ------------------------------------------------------------------------------------------------

    def tool(self, name: str) -> None:
        self.get(f"tool-{name}").click()

    def at(self, x: float, y: float, zoomed: bool = True) -> tuple[float, float]:
        """Where a pixel of the photo is in the window."""
        self.settle(zoomed)
        return self.where(x, y)

    def where(self, x: float, y: float) -> tuple[float, float]:
        """The same as it is at this moment."""
        read = "c => ({view: JSON.parse(c.dataset.view), box: c.getBoundingClientRect().toJSON()})"
        found = self.get("stage").evaluate(read)
        view, box = found["view"], found["box"]
        return box["x"] + view["x"] + (x + 0.5) * view["scale"], box["y"] + view["y"] + (y + 0.5) * view["scale"]

    def click(self, x: float, y: float, **how: Any) -> None:
        self.page.mouse.click(*self.at(x, y), **how)
        self.settle()

    def drag(self, *points: tuple[float, float], button: str = "left", zoomed: bool = True) -> None:
        self.page.mouse.move(*self.at(*points[0], zoomed))
        self.page.mouse.down(button=button)
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point, zoomed), steps=6)
        self.page.mouse.up(button=button)
        self.settle(zoomed)

    # ---- results --------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return [str(row.get_attribute("data-name")) for row in self.get("object").all()]

    def wait_objects(self, count: int, zoomed: bool = True) -> None:
        sync_api.expect(self.get("object")).to_have_count(count, timeout=SECONDS)
        self.settle(zoomed)

    def wait_more_objects(self, count: int) -> None:
        """At least so many."""
        sync_api.expect(self.get("object").nth(count - 1)).to_be_visible(timeout=SECONDS)
        self.settle()

    def export(self, fmt: str) -> Path:
        """A file of the export window."""
        self.get("export").click()
        self.get(f"format-{fmt}").check()
        with self.page.expect_download() as info:
            self.get("download").click()
        self.get("dialog-close").click()
        return Path(info.value.path())

    def masks(self, photo: str) -> list[np.ndarray]:
        """The objects' masks of a photo, by way of the COCO export and pycocotools."""
        from pycocotools import mask as coco_mask

        document = json.loads(self.export("coco").read_text())
        image = next(i for i in document["images"] if i["file_name"] == f"{photo}.jpg")
        found = []
        for annotation in document["annotations"]:
            if annotation["image_id"] == image["id"]:
                rle = annotation["segmentation"]
                if isinstance(rle, list):
                    rle = coco_mask.merge(coco_mask.frPyObjects(rle, image["height"], image["width"]))
                elif isinstance(rle["counts"], list):
                    rle = coco_mask.frPyObjects(rle, *rle["size"])
                found.append(coco_mask.decode(rle).astype(bool))
        return found


def truth(name: str) -> np.ndarray:
    """A mask that was drawn by hand: tests/page/truth."""
    with Image.open(Path(__file__).parent / "truth" / f"{name}.png") as image:
        return np.array(image.convert("1"))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())
