"""The JSON of the API as types, for its OpenAPI document and for the first look at a request.

A prompt's fields and their types are here; what their values may be is decided in one place, `seem.prompts`, whose
`prompt_from_json` every prompt goes through afterwards.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(description='"sha256:" and 64 hex digits of the pixels')]
Point = Annotated[list[float], Field(min_length=2, max_length=2, description="[x, y] in pixels of the photo")]
Vocabulary = Annotated[
    list[str | Annotated[list[str], Field(min_length=2, max_length=2)]],
    Field(description='names, or ["name", "stuff"]', examples=[["dog", ["grass", "stuff"]]]),
]


class Model(BaseModel):
    """No unknown fields, no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True)


# ---- prompts ------------------------------------------------------------------------------------------------------


class Rle(Model):
    """COCO run lengths: compressed, or a list of counts."""

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="[height, width]")]
    counts: str | list[int]


class ClickJSON(Model):
    type: Literal["click"]
    x: float
    y: float
    positive: bool = True


class BoxJSON(Model):
    type: Literal["box"]
    xyxy: Annotated[list[float], Field(min_length=4, max_length=4, description="half-open: [x0, y0, x1, y1]")]


class ScribbleJSON(Model):
    type: Literal["scribble"]
    points: list[Point]
    width: float = 5.0
    positive: bool = True


class PolygonJSON(Model):
    type: Literal["polygon"]
    points: list[Point]
    positive: bool = True


class MaskJSON(Model):
    type: Literal["mask"]
    rle: Rle


class TextJSON(Model):
    type: Literal["text"]
    text: str


VisualPromptJSON = Annotated[ClickJSON | BoxJSON | ScribbleJSON | PolygonJSON | MaskJSON, Field(discriminator="type")]


class ReferenceJSON(Model):
    """A region of another image of this session."""

    type: Literal["reference"]
    image: Digest
    prompt: VisualPromptJSON


PromptJSON = Annotated[
    ClickJSON | BoxJSON | ScribbleJSON | PolygonJSON | MaskJSON | TextJSON | ReferenceJSON,
    Field(discriminator="type"),
]
PROMPT_MODELS = (ClickJSON, BoxJSON, ScribbleJSON, PolygonJSON, MaskJSON, TextJSON, ReferenceJSON)


# ---- requests -----------------------------------------------------------------------------------------------------


class Previous(Model):
    """The round before: a mask, or the id that an earlier answer gave."""

    rle: Rle | None = None
    round: str | Literal[True] | None = Field(
        None, description='"round" of an earlier segment; true: the last one of this object id'
    )


class ObjectJSON(Model):
    id: int
    prompts: list[PromptJSON]
    previous: Previous | None = None


class SegmentRequest(Model):
    objects: Annotated[list[ObjectJSON], Field(min_length=1)]
    vocabulary: Vocabulary | None = None
    label: bool = True
    zoom: bool = Field(False, description="outline objects in windows of their own, once their outline is what counts")


class FindRequest(Model):
    text: str
    threshold: float | None = None
    limit: int | None = None
    quick: bool = False


class PanopticRequest(Model):
    vocabulary: Vocabulary | None = None
    background: bool = False
    threshold: float | None = None


class EverythingRequest(Model):
    vocabulary: Vocabulary | None = None


class LabelRequest(Model):
    mask_rle: Rle | list[Rle]
    vocabulary: Vocabulary | None = None
    top: int = 5


class TextRequest(Model):
    texts: Annotated[list[str], Field(min_length=1)]


class ReferenceRequest(Model):
    prompts: Annotated[list[VisualPromptJSON], Field(min_length=1)]


class ExportObject(Model):
    id: int
    name: str
    mask_rle: Rle
    score: float | None = None


class ExportImage(Model):
    image: Digest | None = None
    file_name: str
    width: int
    height: int
    objects: list[ExportObject]


class ExportRequest(Model):
    format: Literal["coco", "yolo", "labelme", "masks", "cutout", "project"]
    images: Annotated[list[ExportImage], Field(min_length=1)]


class TrackRequest(Model):
    prompts: dict[str, dict[str, Annotated[list[PromptJSON], Field(min_length=1)]]] = Field(
        description="frame -> object id -> prompts, both numbers from 0 as strings"
    )


# ---- answers ------------------------------------------------------------------------------------------------------


class ErrorBody(BaseModel):
    code: str
    message: str


class ErrorAnswer(BaseModel):
    error: ErrorBody


class SessionAnswer(BaseModel):
    session: str
    expires_in: int


class ImageAnswer(BaseModel):
    image: Digest
    width: int
    height: int
    encoded: Annotated[list[int], Field(description="[height, width] that the network saw")]
    encode_ms: float = Field(description="from the queue to the scene; near 0 if it was known")
    scene_bytes: int


class Size(BaseModel):
    width: int
    height: int


class Segment(BaseModel):
    id: int
    mask_rle: Rle
    score: float
    score_kind: str
    label: str | None
    label_score: float | None
    box: list[int] | None
    area: int
    window: list[int] | None = Field(None, description="[x0, y0, x1, y1] that it was outlined in, with zoom")
    round: str | None = Field(None, description="for previous.round of a later request")


class SegmentsAnswer(BaseModel):
    image: Size
    segments: list[Segment]


class PanopticSegmentJSON(BaseModel):
    id: int
    label: str
    score: float
    is_thing: bool
    area: int
    category_id: int | None
    box: list[int] | None
    mask_rle: Rle


class PanopticAnswer(BaseModel):
    image: Size
    segments: list[PanopticSegmentJSON]


class Name(BaseModel):
    name: str
    probability: float


class LabelAnswer(BaseModel):
    labels: list[list[Name]]


class ImportObject(BaseModel):
    id: int
    name: str
    mask_rle: Rle


class ImportImage(BaseModel):
    file_name: str
    width: int
    height: int
    objects: list[ImportObject]


class ImportAnswer(BaseModel):
    images: list[ImportImage]


class VideoAnswer(BaseModel):
    video: str
    width: int
    height: int
    frames: int
    fps: float


class DecoderFile(BaseModel):
    name: str
    bytes: int
    sha256: str


class DecoderAnswer(BaseModel):
    available: bool
    files: list[DecoderFile]


class Sample(BaseModel):
    id: str
    name: str
    url: str
    width: int
    height: int


class InfoAnswer(BaseModel):
    version: str
    model: str
    weights: str
    vocabulary: list[str]
    things: list[str]
    limits: dict[str, Any]
    decoder: DecoderAnswer
    samples: list[Sample]
