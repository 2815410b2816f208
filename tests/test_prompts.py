"""Prompts: values, JSON, and a message for everything that is wrong with them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seem import geometry
from seem.predict.scene import Scene
from seem.prompts import (
    MAX_POINTS,
    Box,
    Click,
    Mask,
    Polygon,
    Prompt,
    Reference,
    Scribble,
    Text,
    check,
    is_positive,
    object_from_json,
    object_to_json,
    prompt_from_json,
)

SIZE = (160, 120)
TRIANGLE = [(10, 10), (50, 10), (30, 40)]


def half_mask(width: int = 160, height: int = 120) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[:, : width // 2] = True
    return mask


# ---- what is refused when a prompt is made ------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
BAD: list[tuple[Any, type[Exception], str]] = [
    # clicks
    (lambda: Click(NAN, 3), ValueError, "Click.x: expected a finite number, got nan"),
    (lambda: Click(3, INF), ValueError, "Click.y: expected a finite number, got inf"),
    (lambda: Click(-INF, 3), ValueError, "Click.x: expected a finite number, got -inf"),
    (lambda: Click("3", 4), TypeError, "Click.x: expected a number, got '3'"),
    (lambda: Click(True, 4), TypeError, "Click.x: expected a number, got True"),
    (lambda: Click(np.True_, 4), TypeError, "Click.x: expected a number"),
    (lambda: Click(None, 4), TypeError, "Click.x: expected a number, got None"),
    (lambda: Click(1 + 2j, 4), TypeError, "Click.x: expected a number"),
    (lambda: Click(np.array([1, 2]), 4), TypeError, "Click.x: expected a number"),
    (lambda: Click(10**400, 4), ValueError, "Click.x: expected a finite number"),
    (lambda: Click(3, 4, positive=1), TypeError, "Click.positive: expected True or False, got 1"),
    (lambda: Click(3, 4, positive="no"), TypeError, "Click.positive: expected True or False, got 'no'"),
    # boxes
    (lambda: Box(5, 5, 5, 9), ValueError, "Box: expected x0 < x1 and y0 < y1, got (5.0, 5.0, 5.0, 9.0)"),
    (lambda: Box(5, 9, 8, 5), ValueError, "Box: expected x0 < x1 and y0 < y1"),
    (lambda: Box(5, NAN, 8, 9), ValueError, "Box.y0: expected a finite number, got nan"),
    (lambda: Box(5, 1, INF, 9), ValueError, "Box.x1: expected a finite number, got inf"),
    (lambda: Box(5, 1, "8", 9), TypeError, "Box.x1: expected a number, got '8'"),
    # scribbles
    (lambda: Scribble([]), ValueError, "Scribble.points: expected 1 to 10000 points, got 0"),
    (lambda: Scribble([(0, 0)] * (MAX_POINTS + 1)), ValueError, "expected 1 to 10000 points, got 10001"),
    (lambda: Scribble([(1, 2), (3, NAN)]), ValueError, "Scribble.points[1].y: expected a finite number, got nan"),
    (lambda: Scribble([(1, 2), (3,)]), ValueError, "Scribble.points[1]: expected (x, y), got (3,)"),
    (lambda: Scribble([(1, 2), "34"]), ValueError, "Scribble.points[1]: expected (x, y), got '34'"),
    (lambda: Scribble([(1, 2), ("3", 4)]), TypeError, "Scribble.points[1].x: expected a number, got '3'"),
    (lambda: Scribble("1,2"), TypeError, "Scribble.points: expected a list of (x, y), got '1,2'"),
    (lambda: Scribble(7), TypeError, "Scribble.points: expected a list of (x, y), got 7"),
    (lambda: Scribble({"x": 1}), TypeError, "Scribble.points: expected a list of (x, y)"),
    (lambda: Scribble(np.zeros((3, 3))), ValueError, "expected an array of numbers of shape (n, 2), got shape (3, 3)"),
    (lambda: Scribble(np.array([["a", "b"]])), ValueError, "expected an array of numbers of shape (n, 2)"),
    (lambda: Scribble(np.array([[1, np.inf]])), ValueError, "Scribble.points: expected finite numbers, got inf"),
    (lambda: Scribble(np.zeros((MAX_POINTS + 1, 2))), ValueError, "expected 1 to 10000 points, got 10001"),
    (lambda: Scribble([(1, 2)], width=0), ValueError, "Scribble.width: expected more than 0, got 0"),
    (lambda: Scribble([(1, 2)], width=-1), ValueError, "Scribble.width: expected more than 0, got -1"),
    (lambda: Scribble([(1, 2)], width=NAN), ValueError, "Scribble.width: expected a finite number, got nan"),
    (lambda: Scribble([(1, 2)], positive=0), TypeError, "Scribble.positive: expected True or False, got 0"),
    # polygons
    (lambda: Polygon([(0, 0), (1, 1)]), ValueError, "Polygon.points: expected 3 to 10000 points, got 2"),
    (lambda: Polygon([(0, 0), (5, 5), (9, 9)]), ValueError, "Polygon.points: expected an area above 0"),
    (lambda: Polygon([(4, 4)] * 5), ValueError, "Polygon.points: expected an area above 0"),
    (lambda: Polygon([(0, 0), (5, 5), (9, NAN)]), ValueError, "Polygon.points[2].y: expected a finite number"),
    (lambda: Polygon([(0, 0)] * (MAX_POINTS + 1)), ValueError, "expected 3 to 10000 points, got 10001"),
    (lambda: Polygon(TRIANGLE, positive=None), TypeError, "Polygon.positive: expected True or False, got None"),
    # masks
    (lambda: Mask([[True]]), TypeError, "Mask.array: expected a numpy array of shape (H, W), got [[True]]"),
    (lambda: Mask(np.zeros((3, 4, 1), bool)), ValueError, "Mask.array: expected shape (H, W), got (3, 4, 1)"),
    (lambda: Mask(np.zeros((0, 4), bool)), ValueError, "Mask.array: expected shape (H, W), got (0, 4)"),
    (
        lambda: Mask(np.full((3, 4), 0.5)),
        TypeError,
        "expected bool, or integers 0 and 1 or 0 and 255, got dtype float64",
    ),
    (lambda: Mask(np.array([["a"]])), TypeError, "Mask.array: expected bool"),
    (lambda: Mask(np.array([[0, 1, 2]])), ValueError, "Mask.array: expected 0 and 1, or 0 and 255, got [1, 2]"),
    (lambda: Mask(np.array([[0, 128]])), ValueError, "Mask.array: expected 0 and 1, or 0 and 255, got [128]"),
    # texts
    (lambda: Text(""), ValueError, "Text.text: expected a phrase, got ''"),
    (lambda: Text(" \n\t"), ValueError, "Text.text: expected a phrase"),
    (lambda: Text(None), TypeError, "Text.text: expected a string, got None"),
    (lambda: Text(b"dog"), TypeError, "Text.text: expected a string, got b'dog'"),
    (lambda: Text("a" * 1001), ValueError, "Text.text: expected at most 1000 characters, got 1001"),
    (lambda: Text("\ud800"), ValueError, "Text.text: expected valid Unicode"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_values_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- what is refused against an image -----------------------------------------------------------------------------

OUTSIDE: list[tuple[Prompt, str]] = [
    (Click(160, 3), "Click: expected 0 <= x < 160 and 0 <= y < 120, got (160, 3)"),
    (Click(3, 120), "expected 0 <= x < 160 and 0 <= y < 120"),
    (Click(-0.5, 3), "expected 0 <= x < 160 and 0 <= y < 120, got (-0.5, 3)"),
    (Box(160, 0, 200, 50), "Box: expected a box that overlaps the image of 160x120"),
    (Box(-9, -9, 0, 50), "Box: expected a box that overlaps the image of 160x120"),
    (Scribble([(-5, 5), (-1, 90)]), "Scribble: expected a line that enters the image of 160x120"),
    (Scribble([(500, 5)]), "Scribble: expected a line that enters the image of 160x120"),
    (Scribble([(-40, 5), (5, -40)]), "Scribble: expected a line that enters the image of 160x120"),
    (Polygon([(200, 5), (220, 5), (210, 30)]), "Polygon: expected a polygon that overlaps the image of 160x120"),
    (Polygon([(-9, 5), (0, 5), (-3, 30)]), "Polygon: expected a polygon that overlaps"),
    (Mask(half_mask(120, 160)), "Mask: expected a mask of 160x120, got 120x160"),
    (Mask(np.zeros((120, 160), bool)), "Mask: expected at least one pixel inside, got an empty mask"),
]


@pytest.mark.parametrize(("prompt", "message"), OUTSIDE)
def test_check_refuses_what_does_not_fit(prompt: Prompt, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        check(prompt, SIZE)
    assert message in str(caught.value)


INSIDE: list[tuple[Prompt, Prompt]] = [
    (Click(0, 0), Click(0, 0)),
    (Click(159.99, 119.99), Click(159.99, 119.99)),
    (Box(-10, -10, 5, 7), Box(0, 0, 5, 7)),
    (Box(-10, -10, 500, 700), Box(0, 0, 160, 120)),
    (Box(3, 4, 160, 120), Box(3, 4, 160, 120)),
    (Scribble([(-5, 5), (5, 5)]), Scribble([(-5, 5), (5, 5)])),
    (Scribble([(-40, 5), (400, 5)]), Scribble([(-40, 5), (400, 5)])),
    (Polygon([(-400, -400), (900, -400), (100, 900)]), Polygon([(-400, -400), (900, -400), (100, 900)])),
    (Text("dog"), Text("dog")),
    (Mask(half_mask()), Mask(half_mask())),
]


@pytest.mark.parametrize(("prompt", "expected"), INSIDE)
def test_check_clips_what_reaches_over_the_border(prompt: Prompt, expected: Prompt) -> None:
    assert check(prompt, SIZE) == expected


def test_check_refuses_other_types() -> None:
    with pytest.raises(TypeError, match="prompt: expected a Click, Box"):
        check((3, 4), SIZE)


# ---- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [3, 3.0, np.float32(3), np.int64(3), np.uint8(3), Fraction(3), np.array(3)])
def test_numbers_of_any_kind_become_floats(number: Any) -> None:
    click = Click(number, 4, positive=np.True_)
    assert (click.x, type(click.x), click.positive, type(click.positive)) == (3.0, float, True, bool)


@pytest.mark.parametrize(
    "points",
    [
        [(1, 2), (3, 4)],
        ((1, 2), [3, 4]),
        np.array([[1, 2], [3, 4]]),
        iter([(1, 2), (3, 4)]),
        [np.array([1, 2]), (3, 4)],
    ],
)
def test_points_of_any_kind_become_tuples(points: Any) -> None:
    assert Scribble(points).points == ((1.0, 2.0), (3.0, 4.0))


@pytest.mark.parametrize("array", [half_mask(), half_mask().astype(np.uint8), half_mask().astype(np.int64) * 255])
def test_masks_of_any_kind_become_bool(array: np.ndarray) -> None:
    mask = Mask(array)
    assert mask.array.dtype == bool
    assert np.array_equal(mask.array, half_mask())
    assert mask == Mask(half_mask())
    assert hash(mask) == hash(Mask(half_mask()))
    assert mask != Mask(~half_mask())
    assert "9600 pixels" in repr(mask)


def test_prompts_are_immutable() -> None:
    array = half_mask()
    mask = Mask(array)
    array[:] = False
    assert mask.array.any()
    with pytest.raises(ValueError, match="read-only"):
        mask.array[0, 0] = False
    with pytest.raises(dataclasses.FrozenInstanceError):
        Click(1, 2).x = 5  # type: ignore[misc]


def test_polygon_that_crosses_itself_is_allowed() -> None:
    assert len(Polygon([(0, 0), (10, 10), (10, 0), (0, 10)]).points) == 4


def test_text_keeps_what_was_typed_and_reads_one_line() -> None:
    text = Text(" a\tred \n car ")
    assert (text.text, text.phrase) == (" a\tred \n car ", "a red car")


def test_is_positive() -> None:
    prompts: list[Prompt] = [Click(1, 2), Box(0, 0, 1, 1), Text("a"), Mask(half_mask()), Polygon(TRIANGLE)]
    assert all(is_positive(prompt) for prompt in prompts)
    assert not is_positive(Scribble([(1, 2)], positive=False))


# ---- references ---------------------------------------------------------------------------------------------------


def test_reference(scene: Scene) -> None:
    reference = Reference(scene, Click(3, 4))
    assert reference == Reference(scene, Click(3, 4))
    assert hash(reference) == hash(Reference(scene, Click(3, 4)))
    assert reference != Reference(scene, Click(4, 4))
    assert scene.digest[:15] in repr(reference)


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        (Click(3, 4, positive=False), ValueError, "Reference.prompt: expected a positive prompt"),
        (Click(300, 4), ValueError, "Reference.prompt: expected 0 <= x < 160"),
        (Text("dog"), TypeError, "Reference.prompt: expected a Click, Box, Scribble, Polygon or Mask"),
        ([Click(3, 4)], TypeError, "Reference.prompt: expected a Click"),
    ],
)
def test_reference_refuses(scene: Scene, prompt: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Reference(scene, prompt)
    assert message in str(caught.value)


def test_reference_needs_a_scene() -> None:
    with pytest.raises(TypeError, match=r"Reference.image: expected a Scene, got 'photo.jpg'"):
        Reference("photo.jpg", Click(3, 4))  # type: ignore[arg-type]


# ---- JSON ---------------------------------------------------------------------------------------------------------

JSON: list[tuple[Prompt, dict[str, Any]]] = [
    (Click(320, 200.5), {"type": "click", "x": 320, "y": 200.5, "positive": True}),
    (Click(9, 12, positive=False), {"type": "click", "x": 9, "y": 12, "positive": False}),
    (Box(40, 60, 300, 400), {"type": "box", "xyxy": [40, 60, 300, 400]}),
    (
        Scribble([(12, 40), (60, 44)], positive=False, width=7),
        {"type": "scribble", "points": [[12, 40], [60, 44]], "width": 7, "positive": False},
    ),
    (
        Polygon(TRIANGLE),
        {"type": "polygon", "points": [[10, 10], [50, 10], [30, 40]], "positive": True},
    ),
    (Mask(np.array([[0, 1], [1, 1]])), {"type": "mask", "rle": {"size": [2, 2], "counts": "13"}}),
    (Text("the dog on the left"), {"type": "text", "text": "the dog on the left"}),
]


@pytest.mark.parametrize(("prompt", "document"), JSON)
def test_json(prompt: Prompt, document: dict[str, Any]) -> None:
    assert prompt.to_json() == document
    assert prompt_from_json(json.loads(json.dumps(prompt.to_json()))) == prompt


def test_json_defaults() -> None:
    assert prompt_from_json({"type": "click", "x": 1, "y": 2}) == Click(1, 2)
    assert prompt_from_json({"type": "scribble", "points": [[1, 2]]}) == Scribble([(1, 2)])


def test_json_of_a_reference(scene: Scene) -> None:
    reference = Reference(scene, Box(1, 2, 30, 40))
    document = reference.to_json()
    assert document == {
        "type": "reference",
        "image": scene.digest,
        "prompt": {"type": "box", "xyxy": [1, 2, 30, 40]},
    }
    assert prompt_from_json(document, {scene.digest: scene}.__getitem__) == reference
    with pytest.raises(ValueError, match="expected an image that was encoded before"):
        prompt_from_json(document, {}.__getitem__)
    with pytest.raises(ValueError, match="expected a resolver"):
        prompt_from_json(document)


def test_json_of_an_object() -> None:
    prompts: list[Prompt] = [Click(1, 2), Text("dog")]
    assert object_from_json(json.loads(json.dumps(object_to_json(3, prompts)))) == (3, prompts)


REFUSED_JSON: list[tuple[Any, str]] = [
    (None, "prompt: expected a JSON object, got None"),
    ([1, 2], "prompt: expected a JSON object, got [1, 2]"),
    ({}, "prompt.type: expected one of click, box"),
    (
        {"type": "lasso"},
        "prompt.type: expected one of click, box, scribble, polygon, mask, text, reference, got 'lasso'",
    ),
    ({"type": ["click"]}, "prompt.type: expected one of"),
    ({"type": "click", "x": 1}, "click: expected the field y, got only x"),
    ({"type": "click", "x": 1, "y": 2, "z": 3}, "click: expected no field but positive, x, y, got 'z'"),
    ({"type": "click", "x": "1", "y": 2}, "Click.x: expected a number, got '1'"),
    ({"type": "click", "x": True, "y": 2}, "Click.x: expected a number, got True"),
    ({"type": "click", "x": 1, "y": 2, "positive": "yes"}, "Click.positive: expected True or False"),
    ({"type": "box", "xyxy": [1, 2, 3]}, "box.xyxy: expected [x0, y0, x1, y1], got [1, 2, 3]"),
    ({"type": "box", "xyxy": "1234"}, "box.xyxy: expected [x0, y0, x1, y1], got '1234'"),
    ({"type": "box", "xyxy": {"0": 1}}, "box.xyxy: expected [x0, y0, x1, y1]"),
    ({"type": "scribble", "points": []}, "Scribble.points: expected 1 to 10000 points, got 0"),
    ({"type": "polygon", "points": {"a": 1}}, "Polygon.points: expected a list of (x, y)"),
    ({"type": "mask", "rle": "abc"}, 'rle: expected {"size": [H, W], "counts": …}'),
    ({"type": "mask", "rle": {"size": [2, 2], "counts": [1, 2]}}, "rle.counts: expected counts"),
    ({"type": "mask", "rle": {"size": [10**6, 10**6], "counts": [10**12]}}, "rle.size: expected at most"),
    ({"type": "text", "text": 3}, "Text.text: expected a string, got 3"),
    (
        {"type": "reference", "image": "photo.jpg", "prompt": {}},
        'reference.image: expected "sha256:" and 64 hex digits',
    ),
    (
        {"type": "reference", "image": "sha256:" + "0" * 64, "prompt": {"type": "text", "text": "a"}},
        "reference.prompt: expected a click",
    ),
    (
        {"type": "reference", "image": "sha256:" + "0" * 64, "prompt": {"type": "reference"}},
        "reference.prompt: expected a click",
    ),
]


@pytest.mark.parametrize(("document", "message"), REFUSED_JSON)
def test_json_that_is_refused(document: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        prompt_from_json(document)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"id": 1}, 'object: expected {"id", "prompts"}'),
        ({"id": "1", "prompts": []}, "object.id: expected a whole number, got '1'"),
        ({"id": True, "prompts": []}, "object.id: expected a whole number, got True"),
        ({"id": -1, "prompts": []}, "object.id: expected 0 to"),
        ({"id": 1, "prompts": {}}, "object.prompts: expected a list"),
        (
            {"id": 1, "prompts": [{"type": "text", "text": "a"}] * 1001},
            "object.prompts: expected a list of at most 1000",
        ),
    ],
)
def test_objects_that_are_refused(document: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        object_from_json(document)
    assert message in str(caught.value)


# ---- properties ---------------------------------------------------------------------------------------------------

finite = st.floats(-1e12, 1e12, allow_nan=False)
points = st.lists(st.tuples(finite, finite), min_size=1, max_size=20)
clicks = st.builds(Click, finite, finite, st.booleans())
scribbles = st.builds(Scribble, points, st.booleans(), st.floats(1e-3, 1e3))
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50).filter(str.strip).map(Text)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return Mask(np.array(bits).reshape(height, width))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    (x0, x1), (y0, y1) = (sorted(draw(st.lists(finite, min_size=2, max_size=2, unique=True))) for _ in "xy")
    return Box(x0, y0, x1, y1)


@given(st.one_of(clicks, boxes(), scribbles, texts, masks()))
def test_json_is_lossless(prompt: Prompt) -> None:
    again = prompt_from_json(json.loads(json.dumps(prompt.to_json())))
    assert again == prompt
    assert hash(again) == hash(prompt)
    assert again.to_json() == prompt.to_json()


@given(boxes(), st.integers(1, 500), st.integers(1, 500))
def test_a_checked_box_lies_inside(box: Box, width: int, height: int) -> None:
    try:
        checked = check(box, (width, height))
    except ValueError:
        assert box.x1 <= 0 or box.y1 <= 0 or box.x0 >= width or box.y0 >= height
    else:
        assert isinstance(checked, Box)
        assert 0 <= checked.x0 < checked.x1 <= width
        assert 0 <= checked.y0 < checked.y1 <= height
        assert check(checked, (width, height)) == checked


keys = st.sampled_from(["type", "x", "y", "xyxy", "points", "rle", "text"])
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner),
    max_leaves=12,
)
kinds = st.sampled_from(["click", "box", "scribble", "polygon", "mask", "text", "reference"])


@given(values, kinds)
def test_any_json_gives_a_prompt_or_a_clear_error(value: Any, kind: str) -> None:
    document = {**value, "type": kind} if isinstance(value, dict) else value
    with contextlib.suppress(ValueError, TypeError):
        assert prompt_from_json(document).to_json()["type"] == kind


@given(scribbles, st.integers(1, 300), st.integers(1, 300))
def test_a_checked_scribble_has_pieces_inside(scribble: Scribble, width: int, height: int) -> None:
    try:
        check(scribble, (width, height))
    except ValueError:
        return
    pieces = geometry.clip_polyline(np.array(scribble.points), (width, height))
    assert pieces
    for piece in pieces:
        assert ((piece >= 0) & (piece <= (width, height))).all()
