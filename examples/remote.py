"""Segment a photo on a server: start `seem serve`, then

python examples/remote.py examples/photos/cat.jpg --click 200,150 --out cat-mask.png
"""

from __future__ import annotations

import argparse

import seem
from seem.serving import Client


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("--click", default="200,150", metavar="X,Y")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--out", default="mask.png")
    args = parser.parse_args()
    x, y = map(float, args.click.split(","))
    with Client(args.server) as client:
        scene = client.encode(args.image)
        result = scene.segment(seem.Click(x, y))
        result.to_png(args.out)
        print(f"{result.label} ({result.label_score:.2f}), score {result.score:.2f}, {result.area} pixels: {args.out}")


if __name__ == "__main__":
    main()
