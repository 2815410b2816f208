"""Sessions: what they see, how they end, what is dropped first."""

from __future__ import annotations

import numpy as np
import pytest

from seem.serving.errors import ApiError
from seem.serving.sessions import Round, Session, Sessions, StoredImage
from seem.serving.worker import Encoded, Memory
from tests.serving.conftest import limits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stored(name: str, size: int = 10) -> StoredImage:
    return StoredImage(Encoded(name, (4, 4), (4, 4), b"s" * (size - 1)), b"p", f"file of {name}", None)


def add(sessions: Sessions, session: Session, name: str, size: int = 10) -> None:
    sessions.add_image(session, stored(name, size), f"file of {name}")


def test_unused_sessions_end_and_used_ones_stay() -> None:
    clock = Clock()
    sessions = Sessions(limits(session_seconds=10), clock)
    old, used = sessions.open(), sessions.open()
    clock.now = 8
    assert sessions.get(used.token) is used
    clock.now = 11
    assert sessions.get(used.token) is used
    with pytest.raises(ApiError) as gone:
        sessions.get(old.token)
    assert (gone.value.status, gone.value.code) == (401, "session")
    assert len(sessions) == 1


def test_too_many_sessions() -> None:
    clock = Clock()
    sessions = Sessions(limits(sessions=2, session_seconds=10), clock)
    sessions.open(), sessions.open()
    with pytest.raises(ApiError) as full:
        sessions.open()
    assert full.value.status == 503
    assert full.value.retry_after == 10
    clock.now = 11
    sessions.open()  # the others have ended


def test_a_session_sees_only_what_it_uploaded() -> None:
    sessions = Sessions(limits())
    mine, other = sessions.open(), sessions.open()
    add(sessions, mine, "a")
    assert sessions.image(mine, "a").encoded.digest == "a"
    with pytest.raises(ApiError) as hidden:
        sessions.image(other, "a")
    assert (hidden.value.status, hidden.value.code) == (404, "not_found")
    add(sessions, other, "a")
    assert sessions.image(other, "a") is sessions.image(mine, "a")
    assert len(sessions.images) == 1


def test_the_least_recently_used_images_go_first() -> None:
    sessions = Sessions(limits(memory_bytes=30))
    session = sessions.open()
    for name in "abc":
        add(sessions, session, name)
    sessions.image(session, "a")
    add(sessions, session, "d")
    assert (sessions.images.bytes, sessions.images.dropped) == (30, 1)
    with pytest.raises(ApiError) as gone:
        sessions.image(session, "b")
    assert (gone.value.status, gone.value.code) == (404, "image_gone")
    assert [sessions.image(session, n).encoded.digest for n in "acd"] == ["a", "c", "d"]


def test_an_image_larger_than_the_budget_is_still_kept_alone() -> None:
    sessions = Sessions(limits(memory_bytes=30))
    session = sessions.open()
    add(sessions, session, "a")
    add(sessions, session, "big", 100)
    assert sessions.image(session, "big").bytes == 100
    assert len(sessions.images) == 1


def test_images_of_one_session_are_capped() -> None:
    sessions = Sessions(limits(images_per_session=2))
    session = sessions.open()
    for name in "abc":
        add(sessions, session, name)
    with pytest.raises(ApiError):
        sessions.image(session, "a")
    assert list(session.images) == ["b", "c"]


def test_the_same_file_is_known_until_its_image_is_dropped() -> None:
    sessions = Sessions(limits(memory_bytes=25))
    session = sessions.open()
    add(sessions, session, "a")
    found = sessions.images.of_file("file of a")
    assert found is not None and found.encoded.digest == "a"
    add(sessions, session, "b")
    add(sessions, session, "c")
    assert sessions.images.of_file("file of a") is None


def test_rounds_are_kept_within_a_budget_and_of_one_image() -> None:
    session = Sessions(limits()).open()
    logits = np.zeros((5, 5), np.float32)  # 100 bytes
    names = [session.remember(Round("a", i, Memory(logits)), budget=250) for i in range(3)]
    assert session.round_bytes == 200
    with pytest.raises(ApiError) as gone:
        session.recall(names[0], "a")
    assert (gone.value.status, gone.value.code) == (409, "round_gone")
    assert session.recall(names[2], "a").object_id == 2
    with pytest.raises(ApiError):
        session.recall(names[2], "b")
    session.forget_image("a")
    assert (session.round_bytes, session.rounds, session.latest) == (0, {}, {})


def test_rounds_of_all_sessions_are_bounded_and_unused_ones_go_first() -> None:
    sessions = Sessions(limits(all_round_bytes=350))
    idle, busy = sessions.open(), sessions.open()
    logits = np.zeros((5, 5), np.float32)  # 100 bytes
    first = [sessions.remember(idle, Round("a", i, Memory(logits))) for i in range(2)]
    sessions.get(busy.token)
    second = [sessions.remember(busy, Round("a", i, Memory(logits))) for i in range(3)]
    assert idle.round_bytes + busy.round_bytes <= 350
    assert [busy.recall(name, "a").object_id for name in second] == [0, 1, 2]
    for name in first:
        with pytest.raises(ApiError):
            idle.recall(name, "a")
