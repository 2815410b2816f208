"""The pictures of the README: python examples/make_pictures.py [--out docs/pictures] [--model seem-tiny]"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from PIL import Image

import seem

PHOTOS = Path(__file__).parent / "photos"
HEIGHT = 300  # of every picture in a row
GAP = 6


class Studio:
    """Photos and their scenes, each encoded once."""

    def __init__(self, model: seem.Model) -> None:
        self.model = model
        self._scenes: dict[str, seem.Scene] = {}

    def scene(self, name: str) -> seem.Scene:
        if name not in self._scenes:
            self._scenes[name] = self.model.encode(PHOTOS / f"{name}.jpg")
        return self._scenes[name]

    def segment(self, name: str, *prompts: seem.Prompt) -> Image.Image:
        return seem.draw(PHOTOS / f"{name}.jpg", self.scene(name).segment(*prompts), prompts)

    def find(self, name: str, text: str) -> Image.Image:
        return seem.draw(PHOTOS / f"{name}.jpg", self.scene(name).find(text), [seem.Text(text)])

    def panoptic(self, name: str) -> Image.Image:
        return seem.draw(PHOTOS / f"{name}.jpg", self.scene(name).panoptic())

    def rounds(self, name: str, clicks: list[seem.Click]) -> list[Image.Image]:
        """One picture after each click; every round reads the mask before it."""
        session = self.scene(name).session()
        photo = PHOTOS / f"{name}.jpg"
        return [seem.draw(photo, session.add(1, click), clicks[: i + 1]) for i, click in enumerate(clicks)]


def row(pictures: list[Image.Image]) -> Image.Image:
    """Pictures side by side at one height, white between them."""
    scaled = [p.resize((round(p.width * HEIGHT / p.height), HEIGHT), Image.Resampling.LANCZOS) for p in pictures]
    sheet = Image.new("RGB", (sum(p.width + GAP for p in scaled) - GAP, HEIGHT), "white")
    x = 0
    for picture in scaled:
        sheet.paste(picture, (x, 0))
        x += picture.width + GAP
    return sheet


def visual(studio: Studio) -> Image.Image:
    """A click, a box, a scribble."""
    return row(
        [
            studio.segment("cat", seem.Click(200, 100)),
            studio.segment("astronaut", seem.Box(15, 10, 370, 512)),
            studio.segment("coffee", seem.Scribble(((220, 90), (260, 160), (300, 190)))),
        ]
    )


def words(studio: Studio) -> Image.Image:
    """A text, a text with a click, every instance of a text."""
    return row(
        [
            studio.segment("coffee", seem.Text("cup")),
            studio.segment("astronaut", seem.Text("person"), seem.Click(230, 320)),
            studio.find("cat", "cat"),
        ]
    )


def everything(studio: Studio) -> Image.Image:
    """A region of another photo, and the whole photo without a prompt."""
    shown = seem.Box(305, 125, 345, 410)
    rocket = seem.draw(PHOTOS / "rocket.jpg", studio.scene("rocket").segment(shown), [shown])
    found = studio.segment("astronaut", seem.Reference(studio.scene("rocket"), shown))
    return row([rocket, found, studio.panoptic("temple")])


def rounds(studio: Studio) -> Image.Image:
    """Three clicks on one object, each correcting the mask before it."""
    clicks = [seem.Click(300, 110), seem.Click(110, 250, positive=False), seem.Click(370, 290, positive=False)]
    return row(studio.rounds("coffee", clicks))


def zoom(studio: Studio) -> Image.Image:
    """A box as one look at the photo outlines it, and in a window of its own."""
    photo, box = PHOTOS / "rocket.jpg", seem.Box(305, 125, 345, 410)
    close = studio.model.encode_large(photo, zoom=True)
    drawn = [seem.draw(photo, scene.segment(box), [box]) for scene in (studio.scene("rocket"), close)]
    return row([picture.crop((205, 90, 445, 427)) for picture in drawn])


PICTURES: dict[str, Callable[[Studio], Image.Image]] = {
    "prompts": visual,
    "words": words,
    "everything": everything,
    "rounds": rounds,
    "zoom": zoom,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs" / "pictures")
    parser.add_argument("--model", default="seem-tiny")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    studio = Studio(seem.load(args.model))
    for name, make in PICTURES.items():
        path = args.out / f"{name}.jpg"
        make(studio).save(path, quality=88)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
