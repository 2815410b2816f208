"""Sessions: rounds, undo and redo, and logs that replay to the same bits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seem.predict.model import Model
from seem.predict.scene import Scene
from seem.predict.session import Session
from seem.prompts import Box, Click, Mask, Polygon, Reference, Scribble, Text
from tests.conftest import RED_BOX, box_mask, make_photo
from tests.fakes import WEIGHTS, FakeNetwork

RED, BLUE, CORNER = Click(40, 50), Click(110, 40), Click(5, 5, positive=False)


def masks(session: Session) -> dict[int, bytes]:
    return {i: o.result.logits.tobytes() for i, o in session.objects.items()}


def test_rounds(scene: Scene) -> None:
    session = scene.session()
    first = session.add(1, RED)
    assert np.array_equal(first.logits, scene.segment(RED).logits)
    second = session.add(1, CORNER)
    assert np.array_equal(second.logits, scene.segment(RED, CORNER, previous=first).logits)
    session.add(7, BLUE, Text("blue"))
    assert list(session.objects) == [1, 7]
    one = session.objects[1]
    assert (one.id, one.prompts, one.rounds) == (1, (RED, CORNER), 2)
    assert one.result is second


def test_several_objects_in_one_round(scene: Scene, network: FakeNetwork) -> None:
    session = scene.session()
    network.calls.clear()
    results = session.add_all({3: [RED], 5: [BLUE]})
    assert network.calls == [2]
    assert list(results) == [3, 5]
    session.undo()
    assert session.objects == {}


def test_undo_and_redo(scene: Scene) -> None:
    session = scene.session()
    assert not session.can_undo
    session.add(1, RED)
    before = masks(session)
    session.add(1, CORNER)
    after = masks(session)
    session.undo()
    assert masks(session) == before
    assert session.can_redo
    session.redo()
    assert masks(session) == after
    session.undo()
    session.add(2, BLUE)  # another way: what was undone is gone
    assert not session.can_redo
    session.remove(1)
    assert list(session.objects) == [2]
    session.undo()
    assert list(session.objects) == [1, 2]


def test_a_call_that_fails_changes_nothing(scene: Scene) -> None:
    session = scene.session()
    session.add(1, RED)
    state, log = masks(session), session.log()
    bad: list[Any] = [
        lambda: session.add(2, CORNER),  # only negative
        lambda: session.add(1, Click(500, 5)),
        lambda: session.add(1),
        lambda: session.add("1", RED),  # type: ignore[arg-type]
        lambda: session.add(-1, RED),
        lambda: session.add_all({}),
        lambda: session.add_all([RED]),  # type: ignore[arg-type]
        lambda: session.add_all({1: [RED], 2: []}),
        lambda: session.remove(9),
        session.redo,
    ]
    for call in bad:
        with pytest.raises((ValueError, TypeError), match="expected"):
            call()
    assert masks(session) == state
    assert session.log() == log
    fresh = scene.session()
    with pytest.raises(ValueError, match="undo: expected a change to undo, got none"):
        fresh.undo()


def test_a_log_replays_to_the_same_masks(scene: Scene, model: Model, photo: np.ndarray) -> None:
    other = model.encode(photo[::-1])
    session = scene.session()
    session.add(1, RED, Scribble([(25, 40), (50, 60)], width=3))
    session.add_all({2: [BLUE], 3: [Text("green"), Polygon([(100, 80), (120, 80), (110, 100)])]})
    session.add(1, CORNER)
    session.undo()
    session.add(4, Mask(box_mask(RED_BOX)), Reference(other, Box(*RED_BOX)))
    session.remove(2)
    session.undo()
    session.redo()
    log = json.loads(json.dumps(session.log()))
    assert (log["version"], log["image"]) == (1, scene.digest)
    resolver = {other.digest: other}.__getitem__
    again = Session.replay(model.encode(photo), log, resolver)
    assert masks(again) == masks(session)
    assert again.log() == session.log()
    assert again.can_undo == session.can_undo
    with pytest.raises(ValueError, match=r"log.events\[4\]: reference.image: expected a resolver"):
        Session.replay(scene, log)


def test_the_log_is_a_copy(scene: Scene) -> None:
    session = scene.session()
    session.add(1, RED)
    session.log()["events"][0]["objects"][0]["prompts"].clear()
    assert len(session.log()["events"][0]["objects"][0]["prompts"]) == 1


ROUND = {"event": "round", "objects": [{"id": 1, "prompts": [RED.to_json()]}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "log: expected"),
        ({"extra": 1}, "log: expected"),
        ({"version": 2}, "log.version: expected 1, got 2"),
        ({"image": "sha256:0"}, "log.image: expected sha256:"),
        ({"events": {}}, "log.events: expected a list"),
        ({"events": ["undo"]}, 'log.events[0]: expected "round"'),
        ({"events": [{"event": "undo"}]}, "log.events[0]: undo: expected a change to undo"),
        ({"events": [{"event": "jump"}]}, 'log.events[0]: expected "round"'),
        ({"events": [ROUND, {"event": "remove", "id": 4}]}, "log.events[1]: object_id: expected one of [1], got 4"),
        ({"events": [{"event": "round", "objects": []}]}, 'log.events[0]: expected "round"'),
        (
            {"events": [{"event": "round", "objects": ROUND["objects"] * 2}]},
            "log.events[0]: objects: expected each id once",
        ),
        ({"events": [{"event": "round", "objects": [{"id": 1}]}]}, "log.events[0]: object: expected"),
    ],
)
def test_logs_that_are_refused(scene: Scene, change: Any, message: str) -> None:
    log = None if change is None else {"version": 1, "image": scene.digest, "events": [ROUND], **change}
    with pytest.raises((ValueError, TypeError)) as caught:
        Session.replay(scene, log)
    assert message in str(caught.value)


actions = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2), st.integers(0, 159), st.integers(0, 119), st.booleans()),
    st.sampled_from([("undo",), ("redo",)]),
    st.tuples(st.just("remove"), st.integers(0, 2)),
)
SCENE = Model(FakeNetwork(), WEIGHTS).encode(make_photo())  # type: ignore[arg-type]


@given(st.lists(actions, max_size=12))
def test_any_session_replays(steps: list[tuple[Any, ...]]) -> None:
    session = SCENE.session()
    for step in steps:
        try:
            match step:
                case ("add", number, x, y, positive):
                    session.add(number, Click(x, y, positive))
                case ("remove", number):
                    session.remove(number)
                case (name,):
                    getattr(session, name)()
        except ValueError:
            continue
    again = Session.replay(SCENE, json.loads(json.dumps(session.log())))
    assert masks(again) == masks(session)
    assert (again.can_undo, again.can_redo) == (session.can_undo, session.can_redo)


def test_a_mask_that_was_given_stands_and_is_remembered(scene: Scene) -> None:
    session = scene.session()
    session.add(1, RED)
    painted = box_mask(RED_BOX)
    painted[:3] = True
    given = session.put(1, painted)
    assert np.array_equal(given.mask, painted) and given.score_kind == "given"
    assert scene.label(given) == scene.label(painted)
    one = session.objects[1]
    assert (one.prompts, one.rounds) == ((RED,), 1)
    after = session.add(1, CORNER)
    assert np.array_equal(after.logits, scene.segment(RED, CORNER, previous=given).logits)
    session.undo()
    session.undo()
    assert session.objects[1].result.score_kind != "given"


def test_a_log_with_given_masks_replays(scene: Scene) -> None:
    """The browser's page writes them for strokes of the brush, masks from a list, and imported ones."""
    session = scene.session()
    session.put_all({1: box_mask(RED_BOX), 2: np.zeros((scene.size[1], scene.size[0]), bool)})
    session.add(1, CORNER)
    session.add(2, BLUE)  # an empty mask is no memory
    assert np.array_equal(session.objects[2].result.logits, scene.segment(BLUE).logits)
    log = json.loads(json.dumps(session.log()))
    assert log["events"][0]["event"] == "set" and set(log["events"][0]["objects"][0]) == {"id", "rle"}
    again = Session.replay(scene, log)
    assert masks(again) == masks(session)
    for bad in ({"id": 1}, {"id": 1, "rle": {"size": [2, 2], "counts": [4]}}, {"id": -1, "rle": log["events"][0]}):
        with pytest.raises((ValueError, TypeError), match=r"log.events\[0\]"):
            Session.replay(scene, log | {"events": [{"event": "set", "objects": [bad]}]})


def test_tiles_take_no_given_mask(model: Model) -> None:
    session = model.encode_large(make_photo(), tile=64).session()
    with pytest.raises(ValueError, match="put: expected a scene of a photo"):
        session.put(1, box_mask(RED_BOX))
