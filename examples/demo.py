"""Three photos, three kinds of prompts, three pictures: python examples/demo.py --out demo"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import seem

PHOTOS = Path(__file__).parent / "photos"
DEMOS: list[tuple[str, list[seem.Prompt]]] = [
    ("cat", [seem.Click(200, 150), seem.Click(430, 60, positive=False)]),
    ("astronaut", [seem.Box(15, 10, 370, 512)]),
    ("coffee", [seem.Text("cup")]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the pictures")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    model = seem.load()
    for name, prompts in DEMOS:
        photo = PHOTOS / f"{name}.jpg"
        start = time.perf_counter()
        scene = model.encode(photo)  # once per photo
        encoded = time.perf_counter()
        result = scene.segment(*prompts)  # once per prompt, or round of prompts
        done = time.perf_counter()
        picture = out / f"{name}.png"
        seem.draw(photo, result, prompts).save(picture)
        kinds = " + ".join(type(prompt).__name__.lower() for prompt in prompts)
        seconds = f"photo {encoded - start:.2f} s, prompt {done - encoded:.2f} s"
        print(f"{picture}: {kinds} -> {result.label}, score {result.score:.2f} ({seconds})")
    print(f"The pictures are in {out.resolve()}")


if __name__ == "__main__":
    main()
