"""Names: COCO's, and a user's own."""

from __future__ import annotations

from typing import Any

import pytest

from seem.vocabulary import COCO_PANOPTIC, COCO_PANOPTIC_NAMES, COCO_THING_NAMES, parse_vocabulary


def test_coco() -> None:
    assert (len(COCO_THING_NAMES), len(COCO_PANOPTIC)) == (80, 133)
    assert len(set(COCO_PANOPTIC_NAMES)) == 133
    assert COCO_PANOPTIC_NAMES[:3] == ("person", "bicycle", "car")
    assert sum(c.is_thing for c in COCO_PANOPTIC) == 80
    ids = [c.coco_id for c in COCO_PANOPTIC]
    assert ids == sorted(set(ids), key=lambda i: i or 0)
    assert (ids[0], ids[79], ids[80], ids[-1]) == (1, 90, 92, 200)
    by_coco = {c.coco_name: c.name for c in COCO_PANOPTIC}
    assert by_coco["wall-other-merged"] == "wall"
    assert not any("-" in name for name in COCO_PANOPTIC_NAMES)


def test_own_names() -> None:
    parsed = parse_vocabulary(["  traffic\tlight ", ("grass", "stuff"), ["dog", "thing"], COCO_PANOPTIC[5]])
    assert [(c.name, c.is_thing, c.coco_id) for c in parsed] == [
        ("traffic light", True, None),
        ("grass", False, None),
        ("dog", True, None),
        ("bus", True, 6),
    ]
    assert parse_vocabulary(None) is COCO_PANOPTIC
    assert parse_vocabulary(iter(["a"]))[0].name == "a"


@pytest.mark.parametrize(
    ("vocabulary", "error", "message"),
    [
        ("dog", TypeError, "vocabulary: expected a list of names, got 'dog'"),
        (5, TypeError, "vocabulary: expected a list of names, got 5"),
        ([], ValueError, "vocabulary: expected at least one name"),
        ([""], ValueError, "vocabulary: expected names of 1 to 200 characters"),
        (["a" * 201], ValueError, "vocabulary: expected names of 1 to 200 characters"),
        ([5], TypeError, 'vocabulary: expected a name or (name, "stuff"), got 5'),
        ([("sky", "stuf")], ValueError, "vocabulary: expected \"thing\" or \"stuff\" beside 'sky', got 'stuf'"),
        (["dog", "Dog"], ValueError, "vocabulary: expected each name once, got 'Dog' twice"),
        ([str(i) for i in range(1001)], ValueError, "vocabulary: expected at most 1000 names"),
    ],
)
def test_refused(vocabulary: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        parse_vocabulary(vocabulary)
    assert message in str(caught.value)
