"""What a closer look sees: squares around regions, pooled inside and around them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seem.model.closer_look import CloserLook, CloserLookConfig, region_boxes


class Colours(nn.Module):
    """The picture itself as both maps: channel means of every cell."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.seen.append(tuple(x.shape))
        return {"s16": nn.functional.avg_pool2d(x, 16), "s32": nn.functional.avg_pool2d(x, 32)}


def look_of(**config: float) -> CloserLook:
    return CloserLook(CloserLookConfig(hidden=8, side=64, **config), 3, 3, 4, 5).eval()  # type: ignore[arg-type]


def rectangle(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (60, 80)) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((0, 0, 80, 60), (0, 0, 1, 1)),
        ((20, 15, 40, 45), (0.25, 0.25, 0.5, 0.75)),
        ((79, 59, 80, 60), (79 / 80, 59 / 60, 1, 1)),
    ],
)
def test_boxes(corners: tuple[int, int, int, int], expected: tuple[float, ...]) -> None:
    assert region_boxes(rectangle(*corners)[None])[0].tolist() == pytest.approx(expected)


def test_inside_and_around_are_told_apart() -> None:
    """A red region on blue: inside is red, around is blue, at a zoom that depends on the region alone."""
    photo = torch.zeros(3, 60, 80)
    photo[2] = 1
    mask = rectangle(20, 20, 40, 40)
    photo[:, 20:40, 20:40] = torch.tensor([1.0, 0, 0])[:, None, None]
    encoder, look = Colours(), look_of(context=2.0)
    with torch.no_grad():
        seen = look.look(encoder, photo, mask[None])[0]
    assert encoder.seen == [(1, 3, 64, 64)]
    inside, whole, around = seen[0:3], seen[6:9], seen[9:12]
    assert inside.tolist() == pytest.approx([1, 0, 0], abs=0.1)
    assert around.tolist() == pytest.approx([0, 0, 1], abs=0.1)
    assert whole.tolist() == pytest.approx([0.25, 0, 0.75], abs=0.05)  # the square is four times the region
    where = seen[-6:].tolist()
    assert where[0] == pytest.approx(torch.tensor(400 / 4800).log().item(), abs=1e-3)
    assert where[1:] == pytest.approx([0, 0.25, -1.3863, 30 / 80, 30 / 60], abs=0.02)


def test_resolutions_of_photo_and_mask_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    photo = nn.functional.interpolate(torch.rand(1, 3, 6, 8, generator=generator), (60, 80), mode="bilinear")[0]
    large = nn.functional.interpolate(photo[None], (120, 160), mode="bilinear")[0]
    mask = rectangle(8, 12, 40, 36)
    look = look_of()
    with torch.no_grad():
        a = look.look(Colours(), photo, mask[None])
        b = look.look(Colours(), large, mask[None].repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.allclose(a, b, atol=0.03)


def test_a_region_at_the_edge_and_many_regions() -> None:
    photo = torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(0))
    masks = torch.stack([rectangle(i, 0, i + 3, 3) for i in range(20)])
    look = look_of()
    with torch.no_grad():
        together = look.look(Colours(), photo, masks)
        alone = torch.cat([look.look(Colours(), photo, m[None]) for m in masks])
        none = look.look(Colours(), photo, masks[:0])
    assert torch.isfinite(together).all() and torch.allclose(together, alone, atol=1e-5)
    assert none.shape == (0, look.looked)


def test_answers() -> None:
    look = look_of()
    regions, names = look(torch.randn(2, look.looked)), look.text(torch.randn(7, 5))
    assert look.name_logits(regions, names).shape == (2, 7)
    for vectors in (regions, names):
        assert torch.allclose(vectors.norm(dim=1), torch.ones(len(vectors)))
