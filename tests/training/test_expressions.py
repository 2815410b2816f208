"""Phrases for objects, and what mirroring does to them."""

from __future__ import annotations

import numpy as np
import pytest

from seem.evaluation.text import PHRASES
from seem.training.expressions import (
    NAME_FORMS,
    PLACES,
    Instance,
    describe,
    expression,
    flip_expression,
    phrase,
    places_of,
    plural,
)


def at(x: float, y: float = 0.5, area: float = 0.1, bottom: float = 0.6) -> Instance:
    return Instance(x, y, area, bottom)


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([at(0.2)], []),
        ([at(0.2), at(0.8)], ["left"]),
        ([at(0.8), at(0.2)], ["right"]),
        ([at(0.5), at(0.52)], []),
        ([at(0.5, 0.1, bottom=0.2), at(0.5, 0.8, bottom=0.9)], ["top"]),
        ([at(0.5, 0.8, bottom=0.9), at(0.5, 0.1, bottom=0.2)], ["bottom"]),
        ([at(0.5, area=0.4, bottom=0.9), at(0.5)], ["largest", "nearest"]),
        ([at(0.5, area=0.4, bottom=0.5), at(0.5, bottom=0.9)], ["largest"]),
        ([at(0.5), at(0.5, area=0.4)], ["smallest"]),
        ([at(0.5), at(0.5, area=0.4, bottom=0.9)], ["smallest", "farthest"]),
        ([at(0.5), at(0.5, area=0.14)], []),
        ([at(0.2, 0.2), at(0.8, 0.8)], ["left", "top", "upper left"]),
        ([at(0.2, 0.2), at(0.8, 0.2), at(0.2, 0.8), at(0.8, 0.8)], ["upper left"]),
        ([at(0.8, 0.2), at(0.2, 0.2), at(0.2, 0.8), at(0.8, 0.8)], ["upper right"]),
        ([at(0.2, 0.8), at(0.2, 0.2), at(0.8, 0.2), at(0.8, 0.8)], ["lower left"]),
        ([at(0.8, 0.8), at(0.2, 0.2), at(0.2, 0.8), at(0.8, 0.2)], ["lower right"]),
        ([at(0.5, 0.2), at(0.2, 0.5), at(0.8, 0.5)], ["top", "middle", "second from the left",
                                                      "second from the right"]),
        ([at(0.3), at(0.1), at(0.7), at(0.9)], ["second from the left", "third from the right"]),
        ([at(0.3), at(0.1), at(0.7), at(0.35)], []),
        ([at(0.6), at(0.1), at(0.15), at(0.9)], ["middle", "second from the right"]),
    ],
)  # fmt: skip
def test_places(instances: list[Instance], expected: list[str]) -> None:
    assert places_of(0, instances) == expected


def test_no_two_instances_share_a_place() -> None:
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(3000):
        instances = [Instance(*rng.random(4)) for _ in range(int(rng.integers(2, 7)))]
        words = [word for i in range(len(instances)) for word in places_of(i, instances)]
        assert len(words) == len(set(words)), instances
        found |= set(words)
    assert found == set(PLACES)


def test_describe() -> None:
    mask = np.zeros((10, 20), bool)
    mask[4:6, 0:10] = True
    assert describe(mask) == Instance(pytest.approx(0.25), pytest.approx(0.5), 0.1, 0.6)


def test_expression_names_the_object() -> None:
    rng = np.random.default_rng(0)
    plain = {expression("dog", [], rng) for _ in range(100)}
    assert plain == {phrase(form, "dog") for form in NAME_FORMS}
    placed = {expression("dog", ["left"], rng) for _ in range(200)}
    assert placed == {phrase(form, "dog") for form in PLACES["left"]}


def test_forms() -> None:
    assert all("dog" in phrase(form, "dog") for forms in PLACES.values() for form in forms)
    assert phrase("{a} {}", "airplane") == "an airplane"
    assert phrase("the left one of the {s}", "person") == "the left one of the people"
    for word, form in PHRASES.items():
        assert form in PLACES[word], "the phrases that are measured are learned"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dog", "dogs"), ("bus", "buses"), ("wine glass", "wine glasses"), ("bench", "benches"), ("puppy", "puppies"),
     ("toy", "toys"), ("person", "people"), ("sheep", "sheep"), ("box", "boxes"), ("computer mouse", "computer mice")],
)  # fmt: skip
def test_plural(name: str, expected: str) -> None:
    assert plural(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left dog", "right dog"),
        ("the dog on the RIGHT", "the dog on the LEFT"),
        ("Leftmost dog", "Rightmost dog"),
        ("left-most dog", "right-most dog"),
        ("right-hand side", "left-hand side"),
        ("righthand dog, left side", "lefthand dog, right side"),
        ("upper left, not lower right", "upper right, not lower left"),
        ("second dog from the left", "second dog from the right"),
        ("dog left of the right cat", "dog right of the left cat"),
        ("man on right in front of the car", "man on left in front of the car"),
        ("right-handed batter", "left-handed batter"),
        ("left's", "right's"),
        ("all right", "all right"),
        ("All right, the left one", "All right, the right one"),
        ("the leftover pizza", "the leftover pizza"),
        ("left over pizza", "left over pizza"),
        ("what he eats right now", "what he eats right now"),
        ("dog right behind the left cat", "dog right behind the right cat"),
        ("right next to the bench", "right next to the bench"),
        ("bright copyright upright", "bright copyright upright"),
        ("a dog", "a dog"),
        ("", ""),
    ],
)
def test_flip_expression(text: str, expected: str) -> None:
    assert flip_expression(text) == expected


def test_flipping_follows_places() -> None:
    """What `places_of` says of the mirrored instances is the flipped word, and twice is nothing."""
    for word, forms in PLACES.items():
        for form in forms:
            flipped = flip_expression(phrase(form, "dog"))
            assert flip_expression(flipped) == phrase(form, "dog")
            assert flipped in {phrase(f, "dog") for f in PLACES[flip_expression(word)]}
