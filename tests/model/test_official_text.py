"""CLIP's tokenizer and the class-name sentences."""

import pytest
import torch

from seem.model.clip_text_encoder import ClipTextEncoder, ClipTextEncoderConfig, tokenize
from seem.model.templates import TEMPLATES, fill_templates


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("dog", [49406, 1929, 49407]),
        ("  A   DOG\n", [49406, 320, 1929, 49407]),
        ("", [49406, 49407]),
    ],
)
def test_token_ids(text: str, ids: list[int]) -> None:
    found, mask = tokenize([text])
    assert found[0, : len(ids)].tolist() == ids
    assert int(mask.sum()) == len(ids)
    assert found.shape == (1, 77)
    assert (found[0, len(ids) :] == 49407).all()


def test_long_text_is_cut_with_its_end_token() -> None:
    found, mask = tokenize(["dog " * 200])
    assert mask.all()
    assert found[0, [0, -1]].tolist() == [49406, 49407]


def test_templates() -> None:
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 81
    assert all(t.count("{}") == 1 for t in TEMPLATES)
    assert "a bad photo of the sky." in fill_templates("sky-other-merged")


def test_what_follows_the_end_does_not_matter() -> None:
    torch.manual_seed(0)
    encoder = ClipTextEncoder(ClipTextEncoderConfig(width=32, heads=2, layers=2, joint_dim=16)).eval()
    alone, _, _ = encoder.encode(["dog"])
    beside, _, _ = encoder.encode(["dog", "a much longer phrase about a dog"])
    torch.testing.assert_close(alone[0], beside[0])
