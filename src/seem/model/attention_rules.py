"""Who may attend to whom inside the prompt decoder's self-attention, for every variant (SPEC section 7).

A decode has *groups* of rows: queries, prompt tokens and memories. A row may attend to the columns that its line
names and to nothing else. Three official semantics and our own differ in this table and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

OBJECT = "queries_object"  # the learned queries, one candidate object each
GROUNDING = "queries_grounding"  # their copy that listens to text
SPATIAL = "queries_spatial"  # their copy that listens to visual prompts
TEXT = "tokens_grounding"
VISUAL = "tokens_spatial"
REFERENCE = "tokens_visual"  # visual prompts on another image (demo); v0 and v1 use tokens_spatial for them
AUDIO = "tokens_audio"  # transcribed speech
MEMORY = "memories_spatial"  # summary of the mask of the round before

PROMPTED = (SPATIAL, GROUNDING, TEXT, VISUAL, REFERENCE, MEMORY)  # groups of one prompted object

Rules = Mapping[str, frozenset[str]]


def _rules(**rows: str) -> Rules:
    return {row: frozenset(columns.split()) for row, columns in rows.items()}


_SEEM = _rules(
    queries_object="queries_object",
    queries_grounding="queries_grounding tokens_grounding",
    queries_spatial="queries_spatial tokens_spatial memories_spatial",
    tokens_grounding="queries_grounding tokens_grounding",
    tokens_spatial="tokens_spatial",
    memories_spatial="memories_spatial",
)

ATTENTION_RULES: Mapping[str, Rules] = {
    "v0": _SEEM,
    "v1": _SEEM,
    "demo": _rules(
        queries_object="queries_object tokens_grounding tokens_spatial tokens_visual tokens_audio",
        tokens_grounding="queries_object tokens_grounding",
        tokens_spatial="tokens_spatial",
        tokens_visual="tokens_visual",
        tokens_audio="queries_object tokens_audio",
    ),
    "tiny": {  # as in SAM, everything said about one object sees everything else; the prompt decoder masks only padding
        OBJECT: frozenset({OBJECT}),
        **{row: frozenset(PROMPTED) for row in PROMPTED},
    },
}

# Text and a visual prompt for one object: two switches of the official evaluation that add a link.
TEXT_TO_SPATIAL = (SPATIAL, TEXT)  # STROKE_SAMPLER.EVAL.GROUNDING
VISUAL_TO_GROUNDING = (GROUNDING, VISUAL)  # REF.INPUT.SPATIAL

# v1 decodes several objects at once; between these groups a row attends only to rows of its own object.
SAME_OBJECT = frozenset({(SPATIAL, SPATIAL), (SPATIAL, VISUAL), (SPATIAL, MEMORY), (VISUAL, VISUAL), (MEMORY, MEMORY)})


@dataclass(frozen=True)
class Group:
    """Some rows of the sequence that attend alike.

    Attributes:
        name: a row of the table.
        length: number of rows.
        padding: (B, length) bool, True for rows that only fill up the batch; None if there are none.
        objects: (B, length) long, which object a row belongs to, -1 for padding; None if it does not matter.
    """

    name: str
    length: int
    padding: Tensor | None = None
    objects: Tensor | None = None


def with_links(rules: Rules, links: Sequence[tuple[str, str]]) -> Rules:
    """The table with (row, column) pairs added."""
    extended = dict(rules)
    for row, column in links:
        extended[row] = extended[row] | {column}
    return extended


def blocked_pairs(rules: Rules, groups: Sequence[Group], batch: int, device: torch.device | None = None) -> Tensor:
    """The self-attention mask: (B, L, L) bool over all rows of all groups in order, True = may not attend.

    Padding is blocked as a row and as a column. Where two groups both know their objects (``SAME_OBJECT``), equality
    of the object decides alone, so padded rows attend to each other there, as in the official v1.

    Raises:
        KeyError: a group that the rules do not name.
    """
    rows = []
    for row in groups:
        allowed = rules[row.name]
        blocks = []
        for column in groups:
            if (
                row.objects is not None
                and column.objects is not None
                and column.name in allowed
                and (row.name, column.name) in SAME_OBJECT
            ):
                block = row.objects[:, :, None] != column.objects[:, None, :]
            else:
                block = torch.full((1, row.length, column.length), column.name not in allowed, device=device)
                if row.padding is not None:
                    block = block | row.padding[:, :, None]
                if column.padding is not None:
                    block = block | column.padding[:, None, :]
            blocks.append(block.expand(batch, -1, -1))
        rows.append(torch.cat(blocks, 2))
    return torch.cat(rows, 1)
