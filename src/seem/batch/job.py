"""What a run asks of every photo. A run that goes on must ask the same: `Job.identity` is what is compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seem.vocabulary import Category, parse_vocabulary

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene
    from seem.predict.segmentation import Segmentation
    from seem.predict.tiles import TiledScene

KINDS = ("prompts", "panoptic", "everything")
OWN_CATEGORIES = 1000  # ids of names that COCO does not have start after this

Row = dict[str, Any]
Objects = list[dict[str, Any]]  # {"id", "prompts"} as in a --prompts file


@dataclass(frozen=True)
class Item:
    """One photo of a run.

    Attributes:
        index: its place in the run, from 0; never changes.
        source: path or address.
        objects: what to ask of it, where that is its own.
    """

    index: int
    source: str
    objects: Objects | None = None


@dataclass(frozen=True)
class Job:
    """One question to many photos.

    Attributes:
        kind: "prompts", "panoptic" or "everything".
        model: name or path of the model; every worker loads it.
        weights: "sha256:…" of it.
        device: where workers run it; "auto" as in `seem.load`.
        objects: of "prompts": what is asked of every photo, unless each has its own.
        vocabulary: names for labels; of "panoptic", what the photo is divided into. None: COCO's, and the model's own.
        options: keyword arguments of `Scene.find`, `panoptic` or `everything`.
        tiles: pixels of a tile's side, where photos are looked at as large images; see `Model.encode_large`.
        zoom: of `Model.encode_large`.
        references: other photos that prompts show regions of: digest -> `Scene.to_bytes`.
    """

    kind: str
    model: str
    weights: str
    device: str = "cpu"
    objects: Objects = field(default_factory=list)
    vocabulary: Sequence[str | tuple[str, str]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tiles: int | None = None
    zoom: bool = False
    references: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def identity(self) -> dict[str, Any]:
        """All that decides the results, as JSON; not where they are computed."""
        names = None if self.vocabulary is None else [list(n) if isinstance(n, tuple) else n for n in self.vocabulary]
        made: dict[str, Any] = {
            "kind": self.kind,
            "weights": self.weights,
            "objects": self.objects,
            "vocabulary": names,
            "options": dict(self.options),
            "tiles": self.tiles,
        }
        return made | {"zoom": True} if self.zoom else made  # folders of before it can still be gone on with

    @property
    def in_windows(self) -> bool:
        """Whether photos are encoded part by part, as `Model.encode_large` does."""
        return self.tiles is not None or self.zoom

    def categories(self, model: Model, phrases: Sequence[str] = ()) -> list[dict[str, Any]]:
        """COCO's list of categories: every name that a result may get, in a fixed order."""
        own = getattr(model.network, "own_names", ()) if self.vocabulary is None else ()
        named = [*parse_vocabulary(self.vocabulary), *(parse_vocabulary(own) if own else ())]
        known = {c.name: c for c in (*parse_vocabulary(None), *named)}
        named += [known.get(p) or Category(p) for p in phrases]
        rows: dict[str, dict[str, Any]] = {}
        for category in named:
            number = category.coco_id or known.get(category.name, category).coco_id or OWN_CATEGORIES + len(rows)
            rows.setdefault(category.name, {"id": number, "name": category.name, "isthing": int(category.is_thing)})
        return list(rows.values())


def is_named_only(prompts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an object is told by words alone: then every instance is looked for, and there may be none."""
    return bool(prompts) and all(p.get("type") == "text" for p in prompts)


def phrases_of(objects: Objects) -> list[str]:
    """The phrases that become labels of results, as `seem.Text` writes them."""
    from seem.prompts import Text

    named = [o["prompts"] for o in objects if is_named_only(o["prompts"])]
    return list(dict.fromkeys(Text(p["text"]).phrase for prompts in named for p in prompts))


def answer(
    scene: Scene | TiledScene, job: Job, objects: Objects, reference: Callable[[str], Scene]
) -> list[dict[str, Any]]:
    """What a scene answers, as JSON: {"id", "label", "label_score", "score", "box", "area", "mask_rle", …} each.

    Raises:
        ValueError, TypeError: prompts that do not fit the photo.
    """
    from seem.prompts import object_from_json

    if job.kind == "panoptic":
        return list(scene.panoptic(vocabulary=job.vocabulary, **job.options).to_json()["segments"])
    if job.kind == "everything":
        found = scene.everything(vocabulary=job.vocabulary, **job.options)
        return [{"id": i, **result.to_json()} for i, result in enumerate(found, start=1)]
    drawn, rows = [], []
    for entry in objects:
        number, prompts = object_from_json(entry, reference)
        if is_named_only(entry["prompts"]):
            for prompt in prompts:
                rows += [_row(number, r) for r in scene.find(prompt.text, **job.options)]  # type: ignore[union-attr]
        else:
            drawn.append((number, prompts))
    if drawn:
        results = scene.segment_all([prompts for _, prompts in drawn], vocabulary=job.vocabulary)
        rows += [_row(number, result) for (number, _), result in zip(drawn, results, strict=True)]
    return rows


def _row(number: int, result: Segmentation) -> dict[str, Any]:
    return {"id": number, **result.to_json()}


def digest_of(document: object) -> str:
    """ "sha256:…" of anything that is JSON."""
    return "sha256:" + hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
