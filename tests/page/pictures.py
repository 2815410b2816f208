"""The pictures of docs/page.md: `python -m tests.page.pictures [folder]` drives the real page and takes them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from tests.page.conftest import CHROMIUM, FLAGS, ROOT, SECONDS, Seem, Server, sync_api

FOLDER = ROOT / "docs/pictures"


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work, sync_api.sync_playwright() as playwright:
        server = Server(Path(work))
        server.start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            take(browser, server.url, folder, Path(work))
        finally:
            browser.close()
            server.stop()


def take(browser: Any, url: str, folder: Path, work: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light", locale="en-US")
    page = Seem(context.new_page(), url)

    def shot(name: str) -> None:
        page.page.wait_for_timeout(400)
        page.page.screenshot(path=work / "shot.png")
        with Image.open(work / "shot.png") as image:
            image.convert("RGB").save(folder / f"page-{name}.webp", quality=82, method=6)

    page.open()
    page.page.wait_for_selector("[data-testid=sample-cat] img")
    page.page.wait_for_timeout(1500)
    shot("welcome")
    page.sample("astronaut")
    page.click(100, 300)
    page.click(420, 430, button="right")
    page.click(230, 100)
    page.get("new-object").click()
    page.tool("box")
    page.drag((275, 343), (509, 511))
    shot("box")
    page.tool("click")
    page.page.locator("[data-testid=object] .name").first.click()
    shot("click")
    page.get("new-object").click()
    page.page.mouse.move(*page.at(410, 150))
    page.page.wait_for_timeout(3000)
    shot("preview")
    page.empty()

    page.sample("coins")
    page.tool("scribble")
    page.drag((335, 175), (347, 187), (356, 200))
    page.get("new-object").click()
    page.tool("polygon")
    for corner in [(22, 53), (44, 34), (66, 53), (44, 73), (22, 53)]:
        page.click(*corner)
    page.get("new-object").click()
    for corner in [(130, 45), (155, 28), (178, 45)]:
        page.click(*corner)
    page.page.mouse.move(*page.at(165, 72))
    shot("polygon")
    page.page.keyboard.press("Escape")
    page.page.locator("[data-testid=object] .name").first.click()
    page.tool("scribble")
    page.page.mouse.move(*page.at(300, 120))
    shot("scribble")
    page.get("simplify").fill("6")
    page.settle()
    shot("corners")
    page.tool("brush")
    page.drag((330, 230), (360, 225), (375, 235))
    shot("brush")
    page.empty()

    page.sample("cat")
    page.tool("text")
    page.get("text").fill("cat")
    page.get("text-all").click()
    page.wait_more_objects(1)
    page.page.wait_for_timeout(7000)  # the message goes
    shot("text")
    page.empty()

    with Image.open(ROOT / "examples/photos/cat.jpg") as photo:
        ImageOps.mirror(photo).resize((300, 200)).save(work / "other-cat.png")
    page.sample("cat")
    with page.page.expect_file_chooser() as chooser:
        page.get("add").click()
        page.page.get_by_role("button", name="Photos or a clip…").click()
    chooser.value.set_files(str(work / "other-cat.png"))
    page.page.get_by_role("button", name="cat.jpg", exact=True).click()
    page.settle()
    page.tool("reference")
    box = page.get("marker").bounding_box()
    page.page.mouse.move(box["x"] + 0.22 * box["width"], box["y"] + 0.05 * box["height"])
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 0.93 * box["width"], box["y"] + 0.95 * box["height"], steps=4)
    page.page.mouse.up()
    shot("reference")
    page.get("reference-use").click()
    page.wait_objects(1)
    shot("reference-found")
    page.empty()

    page.sample("temple")
    page.tool("everything")
    sync_api.expect(page.get("regions")).to_contain_text("regions", timeout=SECONDS)
    page.page.mouse.move(*page.at(250, 200))
    shot("everything")
    page.tool("click")
    for window in ("export", "help", "settings"):
        page.get(window).click()
        shot(window)
        page.get("dialog-close").click()
    page.get("settings").click()
    page.page.get_by_label("Dark").check()
    page.page.get_by_label("中文").check()
    page.get("dialog-close").click()
    page.click(250, 200)
    shot("dark-chinese")
    page.get("settings").click()
    page.page.get_by_text("跟随系统").click()
    page.page.get_by_label("English").check()
    page.get("dialog-close").click()

    page.page.set_viewport_size({"width": 390, "height": 780})
    page.page.wait_for_timeout(500)
    page.get("zoom-fit").evaluate("button => button.click()")
    shot("phone")
    page.get("panel-toggle").click()
    shot("phone-objects")
    context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
