"""An annotator's session on one image: objects, rounds, undo and redo, and a log that replays to the same masks."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seem.prompts import (
    MAX_PROMPTS,
    Mask,
    Prompt,
    Resolver,
    object_from_json,
    object_to_json,
    parse_id,
    prompt_from_json,
)

if TYPE_CHECKING:
    import numpy as np

    from seem.predict.scene import Scene
    from seem.predict.segmentation import Segmentation

LOG_VERSION = 1
MAX_EVENTS = 10_000
MAX_HISTORY = 1000  # rounds that can be undone


@dataclass(frozen=True)
class SessionObject:
    """One object of a session.

    Attributes:
        id: as the caller numbered it.
        prompts: all prompts so far.
        result: the mask after the last round.
        rounds: how many rounds it took.
    """

    id: int
    prompts: tuple[Prompt, ...]
    result: Segmentation
    rounds: int


_State = dict[int, SessionObject]  # never changed once it is in the history


class Session:
    """Rounds of prompts for any number of objects. Each round reads the mask before it as memory.

    Methods are atomic: a call that raises changes nothing, and calls from several threads happen one after another.

    Example:
        >>> session = scene.session()                                      # doctest: +SKIP
        >>> session.add(1, seem.Click(320, 200))                           # doctest: +SKIP
        >>> session.add(1, seem.Click(9, 12, positive=False)).mask         # doctest: +SKIP
        >>> session.undo()                                                 # doctest: +SKIP
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._lock = threading.RLock()
        self._history: list[_State] = [{}]
        self._at = 0
        self._events: list[dict[str, Any]] = []

    # ---- reading --------------------------------------------------------------------------------------------------

    @property
    def objects(self) -> dict[int, SessionObject]:
        """The objects as they are now, by id. A copy."""
        with self._lock:
            return dict(self._history[self._at])

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return self._at < len(self._history) - 1

    # ---- changing -------------------------------------------------------------------------------------------------

    def add(self, object_id: int, *prompts: Prompt) -> Segmentation:
        """One more round for one object, which is new if its id is.

        Args:
            object_id: any whole number from 0.
            prompts: what is new; earlier prompts of the object still count.

        Returns:
            The object's new mask.

        Raises:
            ValueError, TypeError: as `Scene.segment`.
        """
        object_id = parse_id("object_id", object_id)
        return self.add_all({object_id: prompts})[object_id]

    def add_all(self, rounds: Mapping[int, Sequence[Prompt]]) -> dict[int, Segmentation]:
        """One round for several objects in one decode: {object id: new prompts} -> {object id: new mask}."""
        if not isinstance(rounds, Mapping) or not rounds:
            raise ValueError(f"rounds: expected {{object id: prompts}} with at least one object, got {rounds!r}")
        new = {parse_id("object_id", object_id): tuple(prompts) for object_id, prompts in rounds.items()}
        with self._lock:
            self._check_room()
            state = dict(self._history[self._at])
            for object_id, prompts in new.items():
                if not prompts:
                    raise ValueError(f"object {object_id}: expected at least one new prompt, got none")
            before = [state.get(object_id) for object_id in new]
            everything = [(b.prompts if b else ()) + p for b, p in zip(before, new.values(), strict=True)]
            memory = [b.result if b and _remembers(b.result) else None for b in before]
            if len(new) == 1:  # `segment` and `segment_all` agree up to rounding only, but one object has one result
                results = [self.scene.segment(*everything[0], previous=memory[0])]
            else:
                results = self.scene.segment_all(everything, previous=memory)
            for object_id, old, prompts, result in zip(new, before, everything, results, strict=True):
                state[object_id] = SessionObject(object_id, prompts, result, old.rounds + 1 if old else 1)
            objects = [object_to_json(object_id, prompts) for object_id, prompts in new.items()]
            self._push(state, {"event": "round", "objects": objects})
            return {object_id: state[object_id].result for object_id in new}

    def put(self, object_id: int, mask: np.ndarray | Mask) -> Segmentation:
        """Give an object exactly this mask: painted, imported, or kept from a list. Its prompts stay; the next round
        reads the mask as memory.

        Args:
            object_id: any whole number from 0; the object is new if its id is.
            mask: (H, W) bool at the image's size; it may be empty.

        Raises:
            ValueError, TypeError: a mask of another size or kind, or a scene of tiles.
        """
        object_id = parse_id("object_id", object_id)
        return self.put_all({object_id: mask})[object_id]

    def put_all(self, masks: Mapping[int, np.ndarray | Mask]) -> dict[int, Segmentation]:
        """`put` for several objects, as one change."""
        if not isinstance(masks, Mapping) or not masks:
            raise ValueError(f"masks: expected {{object id: mask}} with at least one object, got {masks!r}")
        if not hasattr(self.scene, "given"):
            raise ValueError("put: expected a scene of a photo that is encoded as one, got one of tiles")
        given = {parse_id("object_id", i): mask if isinstance(mask, Mask) else Mask(mask) for i, mask in masks.items()}
        with self._lock:
            self._check_room()
            state = dict(self._history[self._at])
            for object_id, mask in given.items():
                old = state.get(object_id)
                prompts, rounds = (old.prompts, old.rounds) if old else ((), 0)
                state[object_id] = SessionObject(object_id, prompts, self.scene.given(mask), rounds)
            objects = [{"id": object_id, "rle": mask.to_json()["rle"]} for object_id, mask in given.items()]
            self._push(state, {"event": "set", "objects": objects})
            return {object_id: state[object_id].result for object_id in given}

    def remove(self, object_id: int) -> None:
        """Forget an object; `undo` brings it back. Raises ValueError if there is no such object."""
        object_id = parse_id("object_id", object_id)
        with self._lock:
            self._check_room()
            state = dict(self._history[self._at])
            if object_id not in state:
                raise ValueError(f"object_id: expected one of {sorted(state)}, got {object_id}")
            del state[object_id]
            self._push(state, {"event": "remove", "id": object_id})

    def undo(self) -> None:
        """Take the last change back. Raises ValueError if there is none, or it is more than 1000 changes ago."""
        self._move(-1, "undo")

    def redo(self) -> None:
        """Do again what `undo` took back. Raises ValueError if there is nothing, or something else came after."""
        self._move(1, "redo")

    def _move(self, step: int, event: str) -> None:
        with self._lock:
            self._check_room()
            if not 0 <= self._at + step < len(self._history):
                raise ValueError(f"{event}: expected a change to {event}, got none")
            self._at += step
            self._events.append({"event": event})

    def _push(self, state: _State, event: dict[str, Any]) -> None:
        self._history = [*self._history[: self._at + 1], state][-MAX_HISTORY - 1 :]
        self._at = len(self._history) - 1
        self._events.append(event)

    def _check_room(self) -> None:
        if len(self._events) >= MAX_EVENTS:
            raise ValueError(f"session: expected at most {MAX_EVENTS} events, got one more; start a new session")

    # ---- log ------------------------------------------------------------------------------------------------------

    def log(self) -> dict[str, Any]:
        """Everything that happened, as JSON: {"version": 1, "image": "sha256:…", "events": […]}.

        Events are {"event": "round", "objects": [{"id", "prompts"}]}, {"event": "set", "objects": [{"id", "rle"}]} for
        masks that no prompt made, {"event": "remove", "id"}, {"event": "undo"} and {"event": "redo"}.
        """
        with self._lock:
            return {"version": LOG_VERSION, "image": self.scene.digest, "events": [_copy(e) for e in self._events]}

    @classmethod
    def replay(cls, scene: Scene, log: object, resolver: Resolver | None = None) -> Session:
        """The session that a log describes; on the same weights and device its masks are the same, bit for bit.

        Args:
            scene: of the same image.
            log: what `log` gave.
            resolver: turns the digest of a reference's image into its Scene.

        Raises:
            ValueError, TypeError: not such a log, another image, or an event that does not fit.
        """
        if not isinstance(log, Mapping) or set(log) != {"version", "image", "events"}:
            raise ValueError('log: expected {"version", "image", "events"}, got something else')
        if log["version"] != LOG_VERSION:
            raise ValueError(f"log.version: expected {LOG_VERSION}, got {str(log['version'])[:40]}")
        if log["image"] != scene.digest:
            raise ValueError(f"log.image: expected {scene.digest}, got {str(log['image'])[:80]}")
        events = log["events"]
        if not isinstance(events, list) or len(events) > MAX_EVENTS:
            raise ValueError(f"log.events: expected a list of at most {MAX_EVENTS} events")
        session = cls(scene)
        for i, event in enumerate(events):
            try:
                session._apply(event, resolver)
            except (ValueError, TypeError) as error:
                raise type(error)(f"log.events[{i}]: {error}") from None
        return session

    def _apply(self, event: object, resolver: Resolver | None) -> None:
        match event:
            case {"event": "round", "objects": [*objects]} if 0 < len(objects) <= MAX_PROMPTS:
                parsed = [object_from_json(item, resolver) for item in objects]
                if len({object_id for object_id, _ in parsed}) != len(parsed):
                    raise ValueError("objects: expected each id once, got one twice")
                self.add_all(dict(parsed))
            case {"event": "set", "objects": [*objects]} if 0 < len(objects) <= MAX_PROMPTS:
                masks = [_given(item) for item in objects]
                if len({object_id for object_id, _ in masks}) != len(masks):
                    raise ValueError("objects: expected each id once, got one twice")
                self.put_all(dict(masks))
            case {"event": "remove", "id": object_id}:
                self.remove(parse_id("id", object_id))
            case {"event": "undo"}:
                self.undo()
            case {"event": "redo"}:
                self.redo()
            case _:
                raise ValueError(f'expected "round", "set", "remove", "undo" or "redo", got {str(event)[:60]}')


def _remembers(result: Segmentation) -> bool:
    """An empty mask that was given says nothing; the model reads an empty one of its own."""
    return result.score_kind != "given" or result.area > 0


def _given(item: object) -> tuple[int, Mask]:
    """The (id, mask) of a "set" event."""
    if not isinstance(item, Mapping) or set(item) != {"id", "rle"}:
        raise ValueError(f'object: expected {{"id", "rle"}}, got {str(item)[:60]}')
    mask = prompt_from_json({"type": "mask", "rle": item["rle"]})
    assert isinstance(mask, Mask)
    return parse_id("object.id", item["id"]), mask


def _copy(value: Any) -> Any:
    """A deep copy of a JSON value, so that nobody can edit the session through its log."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
