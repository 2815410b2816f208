"""Find named things in every photo of a folder and write a COCO file.

python examples/label_folder.py examples/photos --names person,cup,cat --out found.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import seem

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", required=True, help="comma-separated")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--out", type=Path, default=Path("found.json"))
    args = parser.parse_args()
    names = [name.strip() for name in args.names.split(",")]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    coco: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": categories}
    model = seem.load()
    for path in sorted(p for p in args.folder.iterdir() if p.suffix.lower() in ENDINGS):
        try:
            scene = model.encode(path)
        except seem.ImageError as error:  # one bad file does not stop the others
            print(error)
            continue
        width, height = scene.size
        image_id = len(coco["images"]) + 1
        coco["images"].append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        for category in categories:
            for found in scene.find(str(category["name"]), threshold=args.threshold):
                assert found.box is not None
                x0, y0, x1, y1 = found.box
                coco["annotations"].append(
                    {
                        "id": len(coco["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": category["id"],
                        "segmentation": found.to_rle(),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": found.area,
                        "iscrowd": 0,
                        "score": found.score,
                    }
                )
        print(f"{path.name}: {sum(a['image_id'] == image_id for a in coco['annotations'])} found")
    args.out.write_text(json.dumps(coco))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
