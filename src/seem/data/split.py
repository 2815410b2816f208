"""Training and validation parts of one's own data."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from seem.data.records import Record, RecordError


def split(records: Sequence[Record], share: float = 0.2, seed: int = 0) -> tuple[list[Record], list[Record]]:
    """(kept, held out), the same on every machine, in the order of the records.

    Files of the same bytes stay on one side. Names are shared out from the rarest to the most frequent, so that about
    `share` of each name's photos is held out and a name of one photo is learned (iterative stratification, Sechidis
    et al., ECML 2011). Photos that only look alike are not noticed; `find_leaks` finds them.

    Args:
        records: with `image` and `objects`.
        share: of the photos to hold out, in 0..1, exclusive.
        seed: another seed, another split.

    Raises:
        ValueError: `share` is out of range; RecordError, fewer than two different photos, or one that cannot be read.
    """
    if not 0 < share < 1:
        raise ValueError(f"share: expected more than 0 and less than 1, got {share}")
    groups = _same_content(records, seed)
    if len(groups) < 2:
        raise RecordError(f"expected at least 2 different photos to split, got {len(groups)}")
    names = {k: {o["name"] for r in group for o in r["objects"]} or {None} for k, group in groups.items()}
    held = _share_out(names, share)
    if not held or len(held) == len(groups):  # a few photos of many names
        held = set(sorted(groups)[: min(len(groups) - 1, max(1, round(share * len(groups))))])
    chosen = {id(r) for k in held for r in groups[k]}
    return [r for r in records if id(r) not in chosen], [r for r in records if id(r) in chosen]


def _same_content(records: Sequence[Record], seed: int) -> dict[str, list[Record]]:
    """Records by a digest of their file and the seed."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        try:
            digest = hashlib.sha256(Path(record["image"]).read_bytes()).digest()
        except OSError as error:
            raise RecordError(f"record {record['id']}: {record['image']} cannot be read: {error}") from None
        groups[hashlib.sha256(f"{seed}:".encode() + digest).hexdigest()].append(record)
    return groups


def _share_out(names: dict[str, set[str | None]], share: float) -> set[str]:
    """The groups to hold out: each goes where its rarest name is still wanted more."""
    total = Counter(n for found in names.values() for n in found)
    wanted = {side: {n: part * count for n, count in total.items()} for side, part in ((0, 1 - share), (1, share))}
    room = {0: (1 - share) * len(names), 1: share * len(names)}
    left, held = set(names), set()
    while left:
        counts = Counter(n for k in left for n in names[k])
        rarest = min(counts, key=lambda n: (counts[n], str(n)))
        for k in sorted(k for k in left if rarest in names[k]):
            side = int((wanted[1][rarest], room[1]) > (wanted[0][rarest], room[0]))
            for n in names[k]:
                wanted[side][n] -= 1
            room[side] -= 1
            left.remove(k)
            if side:
                held.add(k)
    return held
