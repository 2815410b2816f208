"""The attention table and the mask that is built from it."""

import pytest
import torch

from seem.model.attention_rules import (
    ATTENTION_RULES,
    GROUNDING,
    MEMORY,
    OBJECT,
    SPATIAL,
    TEXT,
    TEXT_TO_SPATIAL,
    VISUAL,
    Group,
    blocked_pairs,
    with_links,
)


@pytest.mark.parametrize("name", ATTENTION_RULES)
def test_every_column_is_a_row(name: str) -> None:
    rules = ATTENTION_RULES[name]
    assert set().union(*rules.values()) <= set(rules)


@pytest.mark.parametrize("name", ["v0", "v1", "tiny"])
def test_object_queries_never_see_prompts(name: str) -> None:
    assert ATTENTION_RULES[name][OBJECT] == {OBJECT}


def test_blocks_follow_the_table() -> None:
    groups = [Group(OBJECT, 2), Group(GROUNDING, 1), Group(TEXT, 2)]
    blocked = blocked_pairs(ATTENTION_RULES["v0"], groups, 1)[0]
    expected = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]])
    assert torch.equal(blocked, expected.bool())


def test_padding_is_blocked_as_row_and_column() -> None:
    padding = torch.tensor([[False, True], [False, False]])
    groups = [Group(GROUNDING, 1), Group(TEXT, 2, padding)]
    blocked = blocked_pairs(ATTENTION_RULES["v0"], groups, 2)
    assert blocked[0].tolist() == [[False, False, True], [False, False, True], [True, True, True]]
    assert not blocked[1].any()


def test_objects_attend_to_their_own() -> None:
    queries, tokens = torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, -1]])
    groups = [
        Group(SPATIAL, 3, None, queries),
        Group(VISUAL, 3, tokens < 0, tokens),
        Group(MEMORY, 1, None, torch.tensor([[1]])),
    ]
    blocked = blocked_pairs(ATTENTION_RULES["v1"], groups, 1)[0]
    assert blocked[0].tolist() == [False, False, True, False, True, True, True]
    assert blocked[2].tolist() == [True, True, False, True, False, True, False]
    assert blocked[5].tolist() == [True, True, True, True, True, False, True]  # padding matches padding only
    assert blocked[6].tolist() == [True] * 6 + [False]


def test_links_add_and_leave_the_table_alone() -> None:
    assert TEXT in with_links(ATTENTION_RULES["v1"], [TEXT_TO_SPATIAL])[SPATIAL]
    assert TEXT not in ATTENTION_RULES["v1"][SPATIAL]


def test_unknown_group() -> None:
    with pytest.raises(KeyError):
        blocked_pairs(ATTENTION_RULES["demo"], [Group(MEMORY, 1)], 1)
