"""Clicks in rounds, with undo, and a log that replays: python examples/refine.py"""

from __future__ import annotations

import json
from pathlib import Path

import seem

PHOTO = Path(__file__).parent / "photos" / "coffee.jpg"


def main() -> None:
    scene = seem.load().encode(PHOTO)
    session = scene.session()
    cup = 1
    first = session.add(cup, seem.Click(300, 110))
    second = session.add(cup, seem.Click(110, 250, positive=False))  # not the saucer
    print(f"after one click {first.area} pixels, after two {second.area}")
    session.undo()
    assert session.objects[cup].result.area == first.area
    session.redo()

    log = json.dumps(session.log())  # what an annotation tool would keep
    again = seem.Session.replay(scene, json.loads(log))
    assert (again.objects[cup].result.mask == second.mask).all()
    seem.draw(PHOTO, second, session.objects[cup].prompts).save("refined.png")
    print("wrote refined.png")


if __name__ == "__main__":
    main()
