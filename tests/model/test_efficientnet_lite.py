"""EfficientNet-Lite: shapes, padding rule, and the translation of published weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from seem.model.image_encoder.efficientnet_lite import (
    BATCH_NORM_EPS,
    IMAGE_MEAN,
    IMAGE_STD,
    EfficientNetLite,
    EfficientNetLiteConfig,
    SameConv2d,
    Stage,
    checkpoint_filter,
    classifier_weights,
    fold_batch_norm,
)

TINY = EfficientNetLiteConfig(
    stem_channels=4,
    stages=(
        Stage(3, 1, 1, 4, 1),
        Stage(3, 2, 2, 6, 1),
        Stage(5, 2, 2, 8, 2),
        Stage(3, 2, 2, 10, 1),
        Stage(5, 1, 2, 12, 2),
        Stage(5, 2, 2, 14, 1),
        Stage(3, 1, 2, 16, 1),
    ),
    head_channels=24,
)


def tiny(seed: int = 0) -> EfficientNetLite:
    torch.manual_seed(seed)
    return EfficientNetLite(TINY).eval()


def published_state_dict(config: EfficientNetLiteConfig, classes: int = 5) -> dict[str, Tensor]:
    """Random weights under the names and with the BatchNorms of the published file."""
    generator = torch.Generator().manual_seed(1)
    state: dict[str, Tensor] = {}

    def layer(convolution: str, norm: str, *shape: int) -> None:
        state[f"{convolution}.weight"] = torch.randn(*shape, generator=generator) * 0.3
        state[f"{norm}.weight"] = torch.rand(shape[0], generator=generator) + 0.5
        state[f"{norm}.bias"] = torch.randn(shape[0], generator=generator) * 0.5
        state[f"{norm}.running_mean"] = torch.randn(shape[0], generator=generator) * 0.5
        state[f"{norm}.running_var"] = torch.rand(shape[0], generator=generator) + 0.1
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    layer("_conv_stem", "_bn0", config.stem_channels, 3, 3, 3)
    channels, index = config.stem_channels, 0
    for stage in config.stages:
        for _ in range(stage.depth):
            block, hidden = f"_blocks.{index}", channels * stage.expansion
            if stage.expansion > 1:
                layer(f"{block}._expand_conv", f"{block}._bn0", hidden, channels, 1, 1)
            layer(f"{block}._depthwise_conv", f"{block}._bn1", hidden, 1, stage.kernel, stage.kernel)
            layer(f"{block}._project_conv", f"{block}._bn2", stage.channels, hidden, 1, 1)
            channels, index = stage.channels, index + 1
    layer("_conv_head", "_bn1", config.head_channels, channels, 1, 1)
    state["_fc.weight"] = torch.randn(classes, config.head_channels, generator=generator)
    state["_fc.bias"] = torch.randn(classes, generator=generator)
    return state


def published_forward(state: dict[str, Tensor], config: EfficientNetLiteConfig, x: Tensor) -> dict[str, Tensor]:
    """The published network, BatchNorms unfolded, written without the module; x is (value - 127) / 128."""

    def layer(x: Tensor, convolution: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{convolution}.weight"]
        kernel = weight.shape[-1]
        pads: list[int] = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=BATCH_NORM_EPS)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", 2))
    features, index, total = {}, 0, 2
    for stage in config.stages:
        total *= stage.stride
        for i in range(stage.depth):
            block, y = f"_blocks.{index}", x
            if stage.expansion > 1:
                y = F.relu6(layer(y, f"{block}._expand_conv", f"{block}._bn0"))
            y = layer(y, f"{block}._depthwise_conv", f"{block}._bn1", 1 if i else stage.stride, y.shape[1])
            y = layer(F.relu6(y), f"{block}._project_conv", f"{block}._bn2")
            x = x + y if x.shape == y.shape and (i or stage.stride == 1) else y
            index += 1
        features[f"s{total}"] = x
    return features | {"head": F.relu6(layer(x, "_conv_head", "_bn1"))}


@pytest.mark.parametrize(
    ("size", "strided"),
    [
        ((64, 96), {8: (8, 12), 16: (4, 6), 32: (2, 3)}),
        ((512, 339), {8: (64, 43), 16: (32, 22), 32: (16, 11)}),
        ((33, 1), {8: (5, 1), 16: (3, 1), 32: (2, 1)}),
        ((7, 31), {8: (1, 4), 16: (1, 2), 32: (1, 1)}),
    ],
)
def test_every_size_gives_features_of_ceil_size(size: tuple[int, int], strided: dict[int, tuple[int, int]]) -> None:
    with torch.no_grad():
        features = tiny()(torch.randn(2, 3, *size))
    assert {name: tuple(map.shape) for name, map in features.items()} == {
        "s8": (2, 8, *strided[8]),
        "s16": (2, 12, *strided[16]),
        "s32": (2, 16, *strided[32]),
        "head": (2, 24, *strided[32]),
    }


@pytest.mark.parametrize(
    ("kernel", "size", "first"),  # first: the input sample under the middle of the kernel at output 0
    [(3, 8, 1), (3, 7, 0), (5, 8, 1), (5, 7, 0), (3, 1, 0), (5, 2, 1)],
)
def test_padding_is_tensorflow_same(kernel: int, size: int, first: int) -> None:
    convolution = SameConv2d(1, 1, kernel, stride=2)
    with torch.no_grad():
        convolution.weight.zero_()[0, 0, kernel // 2, kernel // 2] = 1.0
        convolution.bias.zero_()  # type: ignore[union-attr]
        ramp = torch.arange(size, dtype=torch.float32)
        x = (ramp[:, None] * 100 + ramp).expand(1, 1, size, size)
        y = convolution(x)
    expected = ramp[first::2]
    assert y.shape[-2:] == (-(-size // 2), -(-size // 2))
    torch.testing.assert_close(y[0, 0], expected[:, None] * 100 + expected)


@pytest.mark.parametrize("size", [(64, 64), (47, 70)])
def test_equals_the_published_network(size: tuple[int, int]) -> None:
    state = published_state_dict(TINY)
    model = tiny()
    model.load_state_dict(checkpoint_filter(state, TINY))
    image = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(2)).float()
    mean, std = torch.tensor(IMAGE_MEAN).view(3, 1, 1), torch.tensor(IMAGE_STD).view(3, 1, 1)
    with torch.no_grad():
        features = model((image - mean) / std)
        expected = published_forward(state, TINY, (image - 127) / 128)
    for name, feature in features.items():
        error = (feature - expected[name]).abs().max() / expected[name].abs().max()
        assert error < 1e-5, name


def test_fold_batch_norm() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(6, 2, 3, 3, generator=generator)
    norm = {
        part: torch.rand(6, generator=generator) + 0.1 for part in ("weight", "bias", "running_mean", "running_var")
    }
    x = torch.randn(1, 2, 5, 5, generator=generator)
    expected = F.batch_norm(
        F.conv2d(x, weight), norm["running_mean"], norm["running_var"], norm["weight"], norm["bias"], eps=1e-3
    )
    torch.testing.assert_close(F.conv2d(x, *fold_batch_norm(weight, norm, eps=1e-3)), expected, rtol=1e-5, atol=1e-5)


def test_classifier_weights_complete_the_published_network() -> None:
    state = published_state_dict(TINY)
    classifier = classifier_weights(state)
    filtered = checkpoint_filter(state, TINY)
    assert {name: tuple(tensor.shape) for name, tensor in classifier.items()} == {
        "weight": (5, 24),
        "bias": (5,),
        "conv_head.weight": (24, 16, 1, 1),
        "conv_head.bias": (24,),
    }
    assert torch.equal(classifier["conv_head.weight"], filtered["conv_head.weight"])


def test_checkpoint_filter_leaves_out_the_head_and_keeps_own_names() -> None:
    without_head = EfficientNetLiteConfig(stem_channels=4, stages=TINY.stages)
    filtered = checkpoint_filter(published_state_dict(TINY), without_head)
    EfficientNetLite(without_head).load_state_dict(filtered)  # strict
    assert checkpoint_filter(filtered).keys() == filtered.keys()


def test_backward_reaches_every_parameter() -> None:
    model = tiny().train()
    features = model(torch.randn(2, 3, 64, 64))
    sum(feature.square().mean() for feature in features.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
    assert model.stem.weight.grad is not None and model.stem.weight.grad.abs().max() > 0


def test_training_and_inference_are_the_same_function_and_deterministic() -> None:
    model, x = tiny(), torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        first, second, training = model(x), model(x), model.train()(x)
    for name in first:
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name], training[name])


def test_save_and_load(tmp_path: Path) -> None:
    model = tiny()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = tiny(seed=5)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        for name, feature in model(x).items():
            assert torch.equal(feature, other(x)[name])


def test_lite0_at_full_size() -> None:
    with torch.device("meta"):
        model = EfficientNetLite()
        features = model(torch.empty(1, 3, 512, 352))
    assert sum(p.numel() for p in model.parameters()) == 2_939_120
    assert {name: tuple(map.shape) for name, map in features.items()} == {
        "s8": (1, 40, 64, 44),
        "s16": (1, 112, 32, 22),
        "s32": (1, 320, 16, 11),
    }
    assert model.config.feature_channels == {"s8": 40, "s16": 112, "s32": 320}
