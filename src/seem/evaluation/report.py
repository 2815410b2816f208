"""A results file as one HTML page that needs nothing else: figures, curves, and the best, median and worst pictures.

Curves are inline SVG, pictures inline JPEG; colours follow the reader's light or dark setting. No script.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from seem.evaluation.pictures import Picture
    from seem.evaluation.results import Results

TITLES = {
    "interactive": "Interactive segmentation",
    "ablation": "Ablation",
    "text": "Text prompts",
    "find": "Finding every instance",
    "label": "Naming given masks",
    "reference": "Reference photos",
    "composition": "Text and click together",
    "panoptic": "Panoptic segmentation",
    "referring": "Referring expressions",
    "video": "Video object segmentation",
    "speed": "Speed",
}
HEADLINES = {  # of each task: figure -> what a reader calls it
    "interactive": {"noc 85": "NoC@85", "noc 90": "NoC@90", "iou_at 1": "IoU@1", "iou_at 5": "IoU@5"},
    "ablation": {
        "gain iou_at 3 mean": "IoU@3 gained",
        "gain iou_at 5 mean": "IoU@5 gained",
        "gain noc 90 mean": "NoC@90 gained",
    },
    "text": {"iou_large": "IoU, large", "iou": "IoU, all", "false_positive": "False alarms"},
    "find": {"ap50": "AP50", "recall": "Recall", "precision": "Precision"},
    "label": {"top1": "Top 1", "top5": "Top 5"},
    "reference": {"iou": "Mean IoU", "found": "Found"},
    "composition": {"iou both": "Both", "iou click": "Click", "iou text": "Text", "iou ensemble": "Ensemble"},
    "panoptic": {"pq all": "PQ", "pq things": "PQ things", "pq stuff": "PQ stuff", "ap": "AP", "miou all": "mIoU"},
    "referring": {"ciou": "cIoU", "miou": "mIoU", "precision 50": "P@0.5"},
    "video": {"jf": "J&F", "j": "J", "f": "F", "floor jf": "Floor J&F"},
    "speed": {"encode_ms": "Encode, ms", "click_ms": "Click, ms", "first_result_ms": "Cold start, ms"},
}
PICTURE_SIDE = 520  # pixels, at most
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 560, 260, 46, 40, 18, 14

_STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#151b26;--soft:#5b6676;--line:#dfe3e9;--s0:#1f6feb;
--s1:#e8590c}
@media(prefers-color-scheme:dark){:root{--bg:#0f131a;--card:#181e28;--ink:#e8ecf2;--soft:#98a3b3;--line:#2b3442;
--s0:#66a3ff;--s1:#ff9655}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px;letter-spacing:-.02em}
h2{font-size:18px;margin:40px 0 12px}
.sub{color:var(--soft);margin:0 0 24px}.note{color:var(--soft);margin:14px 0 0}
.tiles{display:flex;flex-wrap:wrap;gap:12px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 18px;min-width:132px}
.tile b{display:block;font-size:27px;line-height:1.25;font-variant-numeric:tabular-nums;letter-spacing:-.02em}
.tile span{color:var(--soft);font-size:13px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(460px,100%),1fr));gap:16px}
.charts h3{font-size:14px;font-weight:600;margin:0 0 8px}
svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font-size:13px;font-family:inherit}
.grid{stroke:var(--line)}.s0{stroke:var(--s0)}.s1{stroke:var(--s1)}.f0{fill:var(--s0)}.f1{fill:var(--s1)}
.key{display:flex;gap:18px;color:var(--soft);font-size:13px;margin-top:6px}
.key i{display:inline-block;width:14px;height:4px;border-radius:2px;margin-right:6px;vertical-align:middle}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:16px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:12px;overflow:hidden}
figure div{display:flex;gap:2px}
figure img{flex:1 1 0;width:0;min-width:0;height:230px;object-fit:contain;object-position:top}
figure.wide{grid-column:span 2}
figcaption{padding:9px 14px;font-size:13px;color:var(--soft);overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:6px 14px 6px 0;border-bottom:1px solid var(--line);font-size:14px}
th{color:var(--soft);font-weight:500}td.n,th.n{text-align:right}
.sure{color:var(--s0);font-weight:600}
.columns{columns:2 380px;column-gap:40px}.columns tr{break-inside:avoid}
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}
footer{margin-top:40px;color:var(--soft);font-size:13px}
"""


def write(path: Path, results: Results, pictures: Mapping[str, Sequence[Picture]]) -> None:
    """The report of one run; `pictures` are those of "worst", "median" and "best"."""
    figures = flat(results.figures())
    groups = len({row["image"] for row in results.rows})
    marked = any(pictures.values()) and results.task != "panoptic"
    kind = "videos" if results.task == "video" else "photos"
    subtitle = f"{results.model} on {results.dataset} · rows: {len(results.rows)}, {kind}: {groups}"
    names = {key: name for key, name in HEADLINES[results.task].items() if isinstance(figures.get(key), (int, float))}
    body = [
        f"<h1>{TITLES[results.task]}</h1><p class=sub>{_text(subtitle)}</p>",
        _tiles({name: figures[key] for key, name in names.items()}),
        _charts(results),
        *(_gallery(name, pictures[name]) for name in ("best", "median", "worst") if pictures.get(name)),
        "<p class=note>Blue is the answer, the green line the truth.</p>" if marked else "",
        "<h2>All figures</h2>",
        f"<div class='card columns'>{_table(figures)}</div>",
        "<h2>How it was measured</h2>",
        f"<div class='card scroll'>{_table(results.settings)}</div>",
        _footer(results.command, results.commit),
    ]
    _write(path, f"{TITLES[results.task]}: {results.model} on {results.dataset}", body)


def write_comparison(path: Path, report: Mapping[str, Any]) -> None:
    """The report of `compare`: every figure of both, the difference and its interval."""
    title = f"{TITLES[report['task']]}: two results"
    a, b = report["a"], report["b"]
    subtitle = f"{report['dataset']} · {report['n']} rows of {report['photos']} photos in both"
    differs = ", ".join(f"{k} {a['settings'].get(k)} / {b['settings'].get(k)}" for k in report["differs"])
    rows = [
        f"<tr><td>{_text(name)}<td class=n>{_number(v['a'])}<td class=n>{_number(v['b'])}"
        f"<td class='n{' sure' * _sure(v)}'>{v['difference']:+.4f}<td class=n>{v['low']:+.4f} … {v['high']:+.4f}"
        f"<td>{_interval(v, max(abs(v['low']), abs(v['high']), 1e-9))}</tr>"
        for name, v in report["figures"].items()
    ]
    head = "<tr><th>figure<th class=n>A<th class=n>B<th class=n>B − A<th class=n>95 % interval<th></tr>"
    body = [
        f"<h1>{title}</h1><p class=sub>{_text(subtitle)}</p>",
        f"<div class='card scroll'>{_table({'A': a['model'], 'B': b['model'], 'differs': differs or 'nothing'})}</div>",
        "<h2>Differences</h2><p class=sub>Paired bootstrap over photos; coloured where zero is outside.</p>",
        f"<div class='card scroll'><table>{head}{''.join(rows)}</table></div>",
        _footer(a["command"], a["commit"]),
        _footer(b["command"], b["commit"]),
    ]
    _write(path, title, body)


def _write(path: Path, title: str, body: Iterable[str]) -> None:
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


# ---- parts --------------------------------------------------------------------------------------------------------


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"noc": {"85": 2.0}} -> {"noc 85": 2.0}"""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        found |= flat(value, f"{prefix}{name} ") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _tiles(values: Mapping[str, Any]) -> str:
    tiles = (
        f"<div class=tile><b>{_number(value)}</b><span>{_text(name)}</span></div>" for name, value in values.items()
    )
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _gallery(name: str, pictures: Sequence[Picture]) -> str:
    cards = []
    for picture in pictures:
        images = "".join(f'<img src="{_data_uri(image)}" alt="{_text(picture.caption)}">' for image in picture.images)
        wide = " class=wide" if len(picture.images) > 1 else ""
        cards.append(f"<figure{wide}><div>{images}</div><figcaption>{_text(picture.caption)}</figcaption></figure>")
    return f"<h2>{name.capitalize()}</h2><div class=pictures>{''.join(cards)}</div>"


def _table(values: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{_text(name)}<td class=n>{_text(_number(value))}</tr>"
        for name, value in values.items()
        if value is not None
    )
    return f"<table>{''.join(rows)}</table>"


def _footer(command: str | None, commit: str | None) -> str:
    return f"<footer><code>{_text(command or '')}</code><br>commit {_text(commit or 'unknown')}</footer>"


def _text(value: object) -> str:
    return html.escape(str(value))


def _number(value: object) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{int(value):,}" if isinstance(value, float) else str(value)


def _sure(values: Mapping[str, float]) -> bool:
    """Whether zero lies outside the interval."""
    return values["low"] > 0 or values["high"] < 0


def _data_uri(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# ---- charts -------------------------------------------------------------------------------------------------------


def _charts(results: Results) -> str:
    from seem.evaluation.pictures import qualities

    figures = results.figures()
    charts = []
    match results.task:
        case "interactive":
            sides = {"steady hand": figures} | ({"jittered": figures["jittered"]} if "jittered" in figures else {})
            charts += _click_charts(sides)
        case "ablation":
            part = results.settings.get("part", "")
            charts += _click_charts({f"with {part}": figures["with"], f"without {part}": figures["without"]})
        case "referring":
            precision = {f"0.{k[0]}": v or 0.0 for k, v in figures["precision"].items()}
            charts.append(
                ("Share of sentences at IoU", line_chart({"precision": list(precision.values())}, list(precision)))
            )
        case "video":
            sides = {"J&F": [(r["j"] + r["f"]) / 2 for r in results.rows]}
            sides |= {"first mask copied": [(r["floor_j"] + r["floor_f"]) / 2 for r in results.rows]}
            if len(results.rows) <= 30:
                charts.append(("J&F of each object", bar_chart(sides, [r["key"] for r in results.rows])))
    values = [v for v in qualities(results.task, results.rows) if 0 <= v <= 1]
    if values and results.task != "ablation":
        counts, edges = np.histogram(values, bins=10, range=(0, 1))
        labels = [f"{edge:.1f}" for edge in edges[:-1]]
        charts.append(
            (_QUALITY_TITLES.get(results.task, "IoU of each row"), bar_chart({"rows": counts.tolist()}, labels))
        )
    if not charts:
        return ""
    cards = (f"<div class=card><h3>{_text(title)}</h3>{chart}</div>" for title, chart in charts)
    return f"<h2>Curves</h2><div class=charts>{''.join(cards)}</div>"


_QUALITY_TITLES = {
    "interactive": "Objects by IoU after three rounds",
    "find": "Average precision of each photo and class",
    "label": "Right names by their probability",
    "panoptic": "Panoptic quality of each photo and class",
    "video": "Objects by J",
    "referring": "Sentences by IoU",
}


def _click_charts(sides: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    rounds = list(next(iter(sides.values()))["iou_at"])
    thresholds = [t for t in next(iter(sides.values()))["noc"] if all(t in side["noc"] for side in sides.values())]
    noc = {name: [side["noc"][t] for t in thresholds] for name, side in sides.items()}
    return [
        ("Mean IoU after each round", line_chart({n: list(s["iou_at"].values()) for n, s in sides.items()}, rounds)),
        ("Rounds to an IoU of …, 20 at most", bar_chart(noc, [f"0.{t}" for t in thresholds])),
    ]


def line_chart(series: Mapping[str, Sequence[float]], labels: Sequence[str]) -> str:
    """An SVG of one or two curves of values in 0..1, and their key."""
    low = min(0.9, np.floor(10 * min(min(values) for values in series.values())) / 10)
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(labels) - 1, 1)
    parts = [_frame([low + (1 - low) * k / 4 for k in range(5)], low, 1.0)]
    every = -(-len(labels) // 10)
    for i, label in enumerate(labels):
        if i % every == 0:
            parts.append(
                f"<text x='{_LEFT + i * step:.1f}' y='{_HEIGHT - 18}' text-anchor=middle>{_text(label)}</text>"
            )
    for k, values in enumerate(series.values()):
        points = [(_LEFT + i * step, _y(value, low, 1.0)) for i, value in enumerate(values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f"<polyline class=s{k} points='{path}' fill=none stroke-width=3 stroke-linejoin=round></polyline>")
        parts += [f"<circle class=f{k} cx='{x:.1f}' cy='{y:.1f}' r=3.5></circle>" for x, y in points]
    return _svg(parts, series)


def bar_chart(series: Mapping[str, Sequence[float]], labels: Sequence[str]) -> str:
    """An SVG of groups of bars from 0, with their values, and their key."""
    most = max(max(values) for values in series.values())
    step = -(-most // 4) if most > 2 else most / 4 or 0.25
    top = 4 * step
    group = (_WIDTH - _LEFT - _RIGHT) / len(labels)
    width = min(group * 0.8 / len(series), 56)
    parts = [_frame([step * k for k in range(5)], 0.0, top)]
    for i, label in enumerate(labels):
        middle = _LEFT + (i + 0.5) * group
        parts.append(f"<text x='{middle:.1f}' y='{_HEIGHT - 18}' text-anchor=middle>{_text(label)}</text>")
        for k, values in enumerate(series.values()):
            x, y = middle + (k - len(series) / 2) * width, _y(values[i], 0.0, top)
            height = max(_HEIGHT - _BOTTOM - y, 0)
            size = f"width='{width - 2:.1f}' height='{height:.1f}'"
            parts.append(f"<rect class=f{k} x='{x + 1:.1f}' y='{y:.1f}' {size} rx=3></rect>")
            value = str(values[i]) if isinstance(values[i], int) else f"{values[i]:.2f}"
            parts.append(f"<text x='{x + width / 2:.1f}' y='{y - 5:.1f}' text-anchor=middle>{value}</text>")
    return _svg(parts, series)


def _frame(ticks: Sequence[float], low: float, high: float) -> str:
    lines = []
    for tick in ticks:
        y = _y(tick, low, high)
        text = f"{tick:.2f}" if high <= 2 else f"{tick:.0f}"
        lines.append(f"<line class=grid x1={_LEFT} x2={_WIDTH - _RIGHT} y1='{y:.1f}' y2='{y:.1f}'></line>")
        lines.append(f"<text x={_LEFT - 8} y='{y + 4:.1f}' text-anchor=end>{text}</text>")
    return "".join(lines)


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - (value - low) / (high - low))


def _svg(parts: Iterable[str], series: Iterable[str]) -> str:
    names = list(series)
    key = "".join(f"<span><i style='background:var(--s{k})'></i>{_text(name)}</span>" for k, name in enumerate(names))
    chart = f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img>{''.join(parts)}</svg>"
    return chart + (f"<div class=key>{key}</div>" if len(names) > 1 else "")


def _interval(values: Mapping[str, float], reach: float) -> str:
    """The interval as a bar on a line whose middle is zero."""
    left, right, at = (80 + 74 * values[key] / reach for key in ("low", "high", "difference"))
    colour = "var(--s0)" if _sure(values) else "var(--soft)"
    return (
        f"<svg viewBox='0 0 160 18' style='width:160px;color:{colour}'>"
        f"<line class=grid x1=80 x2=80 y1=0 y2=18></line>"
        f"<line x1='{left:.1f}' x2='{right:.1f}' y1=9 y2=9 stroke=currentColor stroke-width=3></line>"
        f"<circle cx='{at:.1f}' cy=9 r=4 fill=currentColor></circle></svg>"
    )
