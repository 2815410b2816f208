"""From RGB pixels to the tensor that the image encoder sees; the one function that inference and training share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seem import geometry
from seem.geometry import ImageGeometry
from seem.model.config import ImageConfig


def network_input(
    pixels: np.ndarray, config: ImageConfig, device: str | torch.device = "cpu"
) -> tuple[Tensor, tuple[int, int]]:
    """Resize, normalise, then zero-pad right and bottom.

    Args:
        pixels: (H, W, 3) uint8 RGB, after the EXIF rotation.

    Returns:
        (1, 3, H', W') float32 and the unpadded (h, w).
    """
    sizes = ImageGeometry.of((pixels.shape[1], pixels.shape[0]), config)
    small = geometry.resize_image(pixels, sizes.encoded, config.interpolation)
    h, w = small.shape[:2]
    padded = torch.zeros(1, 3, sizes.padded[1], sizes.padded[0], device=device)
    padded[0, :, :h, :w] = normalised(small, config, device)
    return padded, (h, w)


def normalised(pixels: np.ndarray, config: ImageConfig, device: str | torch.device = "cpu") -> Tensor:
    """(H, W, 3) uint8 RGB -> (3, H, W) float32 with the config's mean and deviation."""
    values = torch.tensor(pixels, device=device).permute(2, 0, 1).float()
    mean = torch.tensor(config.mean, device=device)[:, None, None]
    std = torch.tensor(config.std, device=device)[:, None, None]
    return (values - mean) / std
