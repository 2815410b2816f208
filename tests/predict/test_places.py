"""Phrases with a place: taken apart, and chosen among instances."""

from __future__ import annotations

import numpy as np
import pytest

import seem
from seem.predict.places import Place, choose, main_name, parse_place
from seem.training.expressions import PLACES, phrase
from tests.fakes import WEIGHTS, FakeNetwork


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the dog on the left", Place("dog", "left")),
        ("  Left  dog.", Place("dog", "left")),
        ("fire hydrant in the upper right corner of the picture", Place("fire hydrant", "top right")),
        ("the second bus from the right", Place("bus", "right", 2)),
        ("bus third from left", Place("bus", "left", 3)),
        ("the biggest one of the buses", Place("bus", "largest")),
        ("the left one of the people", Place("person", "left")),
        ("dog closest to the camera", Place("dog", "nearest")),
        ("the red car in the background", Place("red car", "farthest")),
        ("a dog", None),
        ("the dog behind the sofa", None),
        ("the man on the left of the car", None),
        ("the left dog on the right", None),
        ("left", None),
    ],
)
def test_parse(text: str, expected: Place | None) -> None:
    assert parse_place(text) == expected


@pytest.mark.parametrize("name", ["dog", "bus", "person", "traffic light"])
@pytest.mark.parametrize("word", ["left", "right", "top", "bottom", "upper left", "lower right", "largest", "smallest",
                                  "second from the left", "third from the right"])  # fmt: skip
def test_phrases_that_training_makes_are_understood(word: str, name: str) -> None:
    for form in PLACES[word]:
        place = parse_place(phrase(form, name))
        assert place is not None and place.name == name


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[y0:y1, x0:x1] = True
    return mask


MASKS = [box(0, 4, 8, 12), box(20, 0, 24, 4), box(40, 20, 58, 38), box(12, 26, 22, 36)]


@pytest.mark.parametrize(
    ("word", "rank", "expected"),
    [
        ("left", 1, 0), ("left", 2, 3), ("left", 4, 2), ("right", 1, 2), ("right", 2, 1), ("top", 1, 1),
        ("bottom", 1, 3), ("top left", 1, 0), ("bottom right", 1, 2), ("largest", 1, 2), ("smallest", 1, 1),
        ("nearest", 1, 2), ("farthest", 1, 1),
    ],
)  # fmt: skip
def test_choose(word: str, rank: int, expected: int) -> None:
    assert choose(Place("dog", word, rank), MASKS) == expected


def test_the_middle_of_three() -> None:
    assert choose(Place("dog", "middle"), [box(0, 0, 9, 9), box(50, 0, 59, 9), box(26, 0, 35, 9)]) == 2


@pytest.mark.parametrize(("place", "masks"), [(Place("dog", "left"), MASKS[:1]), (Place("dog", "left", 3), MASKS[:2])])
def test_too_few_to_choose_from(place: Place, masks: list[np.ndarray]) -> None:
    assert choose(place, masks) is None


class PlacedNetwork(FakeNetwork):
    places_by_geometry = True


def scene(network: FakeNetwork) -> seem.Scene:
    photo = np.full((120, 160, 3), 128, np.uint8)
    photo[20:60, 20:50] = (255, 0, 0)  # two red squares, the right one larger
    photo[30:90, 90:150] = (255, 0, 0)
    return seem.Model(network, WEIGHTS).encode(photo)


@pytest.mark.parametrize(
    ("text", "box_expected"),
    [
        ("the red on the left", (20, 20, 50, 60)),
        ("rightmost red", (90, 30, 150, 90)),
        ("the smallest red", (20, 20, 50, 60)),
        ("the biggest one of the reds", (90, 30, 150, 90)),
    ],
)
def test_a_place_chooses_among_all_instances(text: str, box_expected: tuple[int, int, int, int]) -> None:
    placed = scene(PlacedNetwork())
    result = placed.segment(seem.Text(text), vocabulary=["blue", "red"])
    assert result.box is not None and np.abs(np.subtract(result.box, box_expected)).max() <= 4
    assert result.label == "red"
    found = placed.find(text, threshold=0.1)
    assert len(found) == 1 and found[0].box == result.box and found[0].label == text


def test_other_prompts_leave_the_phrase_to_the_network() -> None:
    text = seem.Text("the red on the left")
    click = seem.Click(120, 60)
    plain, placed = scene(FakeNetwork()), scene(PlacedNetwork())
    assert np.array_equal(placed.segment(text, click).logits, plain.segment(text, click).logits)
    assert not np.array_equal(placed.segment(text).logits, plain.segment(text).logits)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("the elephant standing on higher terrain behind the person who is not wearing a hat", "elephant"),
        ("a bowl whose exterior is neither red nor white", "bowl"),
        ("suitcase next to car wheel", "suitcase"),
        ("the person wearing a hat, behind the table", "person"),
        ("A  small brown dog with a ball.", "small brown dog"),
        ("traffic light", "traffic light"),
        ("the dining table", "the dining table"),
        ("building", "building"),
        ("slice of pizza on a plate", "slice of pizza"),
        ("in the dark", "in the dark"),
        ("onion", "onion"),
        ("", ""),
    ],
)
def test_main_name(phrase: str, expected: str) -> None:
    assert main_name(phrase) == expected
