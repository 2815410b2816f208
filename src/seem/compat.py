"""A stand-in for `segment_anything.SamPredictor`, so that tools written for SAM run on SEEM unchanged.

    - from segment_anything import SamPredictor, sam_model_registry
    + import seem
    + from seem.compat import SamPredictor
    - predictor = SamPredictor(sam_model_registry["vit_b"](checkpoint="sam_vit_b.pth"))
    + predictor = SamPredictor(seem.load())

The interface is that of Kirillov et al., "Segment Anything", arXiv 2304.02643. Differences: masks come from SEEM, so
the third axis of `multimask_output` means SEEM's candidates; only background points are a ValueError unless a
`mask_input` comes with them; points outside the image are moved to its border, as SAM's resizing does in effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seem.prompts import Box, Click, Prompt

if TYPE_CHECKING:
    from seem.predict.model import Model
    from seem.predict.scene import Scene

LOW_RES = 256  # side of SAM's low-resolution masks
CANVAS = 1024  # side of SAM's input, which `transform` scales coordinates to
_OUTSIDE = -20.0  # logit of the padding beyond the image


class ResizeLongestSide:
    """Coordinates of an image <-> of SAM's 1024-pixel input, for tools that go through `predictor.transform`."""

    def __init__(self, target_length: int = CANVAS) -> None:
        self.target_length = target_length

    def scale(self, original_size: tuple[int, int]) -> np.ndarray:
        """(2,) factors for x and y; `original_size` is (H, W)."""
        height, width = original_size
        factor = self.target_length / max(height, width)
        return np.array([int(width * factor + 0.5) / width, int(height * factor + 0.5) / height])

    def apply_coords(self, coords: np.ndarray, original_size: tuple[int, int]) -> np.ndarray:
        """(..., 2) xy of the image -> of the 1024-pixel input."""
        scaled: np.ndarray = np.asarray(coords, np.float64) * self.scale(original_size)
        return scaled

    def apply_boxes(self, boxes: np.ndarray, original_size: tuple[int, int]) -> np.ndarray:
        """(B, 4) XYXY of the image -> of the 1024-pixel input."""
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_coords_torch(self, coords: Tensor, original_size: tuple[int, int]) -> Tensor:
        """The same as `apply_coords` on tensors."""
        return coords * torch.tensor(self.scale(original_size), dtype=torch.float32, device=coords.device)

    def apply_boxes_torch(self, boxes: Tensor, original_size: tuple[int, int]) -> Tensor:
        """The same as `apply_boxes` on tensors."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)


class SamPredictor:
    """SAM's predictor over a SEEM model.

    Args:
        sam_model: a `seem.Model`.

    Example:
        >>> predictor = SamPredictor(seem.load())                                               # doctest: +SKIP
        >>> predictor.set_image(array)                                                          # doctest: +SKIP
        >>> masks, scores, logits = predictor.predict(np.array([[320, 200]]), np.array([1]))    # doctest: +SKIP
    """

    def __init__(self, sam_model: Model) -> None:
        self.model = sam_model
        self.transform = ResizeLongestSide()
        self._scene: Scene | None = None

    # ---- image ----------------------------------------------------------------------------------------------------

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Encode an image. `image` is (H, W, 3) uint8; `image_format` is "RGB" or "BGR"."""
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f'image_format: expected "RGB" or "BGR", got {image_format!r}')
        if not isinstance(image, np.ndarray):
            raise TypeError(f"image: expected a uint8 array of shape (H, W, 3), got {type(image).__name__}")
        self._scene = self.model.encode(image[..., ::-1] if image_format == "BGR" else image)

    def reset_image(self) -> None:
        """Forget the image."""
        self._scene = None

    @property
    def is_image_set(self) -> bool:
        """Whether `set_image` was called."""
        return self._scene is not None

    @property
    def scene(self) -> Scene:
        """The encoded image: SEEM's own interface, for what SAM has no words for. Raises RuntimeError without one."""
        if self._scene is None:
            raise RuntimeError("an image must be set with .set_image(...) before mask prediction")
        return self._scene

    @property
    def original_size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        width, height = self.scene.size
        return height, width

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) that `transform` scales the image to."""
        height, width = self.original_size
        factor_x, factor_y = self.transform.scale((height, width))
        return round(height * factor_y), round(width * factor_x)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    # ---- masks ----------------------------------------------------------------------------------------------------

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks of one object, prompts in pixels of the image.

        Args:
            point_coords: (N, 2) xy.
            point_labels: (N,) 1 for the object, 0 for the background.
            box: (4,) XYXY.
            mask_input: (1, 256, 256) low-resolution logits of an earlier call.
            multimask_output: all candidates, or only the best.
            return_logits: masks as logits instead of bool.

        Returns:
            masks (C, H, W) bool, or float32 logits; predicted IoU (C,) float32; low-resolution logits
            (C, 256, 256) float32, the image's long side spanning the 256.

        Raises:
            RuntimeError: no image is set.
            ValueError: no prompt, or one that does not fit.
        """
        scene = self.scene
        prompts = [*self._clicks(point_coords, point_labels), *self._boxes(box)]
        previous = None if mask_input is None else self._from_low_res(mask_input)
        if not prompts and previous is not None:
            prompts = [_click_inside(previous, scene)]
        if multimask_output:
            results = scene.candidates(*prompts, previous=previous)
        else:
            results = [scene.segment(*prompts, previous=previous, label=False)]
        logits = torch.tensor(np.stack([r.logits for r in results]))
        masks = scene.geometry.upsample(logits).numpy() if return_logits else np.stack([r.mask for r in results])
        return masks, np.array([r.score for r in results], np.float32), self._to_low_res(logits)

    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks of B objects, prompts as `transform` scales them.

        Args:
            point_coords: (B, N, 2) xy. point_labels: (B, N); -1 is padding. boxes: (B, 4) XYXY.
            mask_input: (B, 1, 256, 256).

        Returns:
            Tensors on the model's device: masks (B, C, H, W), predicted IoU (B, C), logits (B, C, 256, 256).
        """
        scale = self.transform.scale(self.original_size)
        given = [t for t in (point_coords, boxes, mask_input) if t is not None]
        if not given:
            raise ValueError("point_coords: expected points, boxes or mask_input, got none")
        outputs = []
        for i in range(len(given[0])):
            points = labels = box = None
            if point_coords is not None and point_labels is not None:
                real = (point_labels[i] >= 0).cpu().numpy()
                points = (point_coords[i].float().cpu().numpy() / scale)[real]
                labels = point_labels[i].cpu().numpy()[real]
            if boxes is not None:
                box = (boxes[i].reshape(2, 2).float().cpu().numpy() / scale).reshape(4)
            low = None if mask_input is None else mask_input[i].float().cpu().numpy()
            outputs.append(self.predict(points, labels, box, low, multimask_output, return_logits))
        return tuple(torch.tensor(np.stack(part), device=self.device) for part in zip(*outputs, strict=True))  # type: ignore[return-value]

    # ---- prompts --------------------------------------------------------------------------------------------------

    def _clicks(self, coords: np.ndarray | None, labels: np.ndarray | None) -> list[Prompt]:
        if coords is None:
            return []
        coords = np.asarray(coords)
        if coords.ndim != 2 or coords.shape[1] != 2 or not np.isfinite(coords).all():
            raise ValueError(f"point_coords: expected finite (N, 2) xy, got shape {coords.shape}")
        labels = np.asarray([] if labels is None else labels)
        if labels.shape != (len(coords),):
            raise ValueError(f"point_labels: expected shape ({len(coords)},), got {labels.shape}")
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f"point_labels: expected 0 or 1, got {labels.tolist()[:5]}")
        inside = np.floor(coords).clip(0, np.array(self.scene.size) - 1)
        return [Click(x, y, bool(label)) for (x, y), label in zip(inside.tolist(), labels.tolist(), strict=True)]

    def _boxes(self, box: np.ndarray | None) -> list[Prompt]:
        if box is None:
            return []
        values = np.asarray(box).reshape(-1)
        if values.shape != (4,):
            raise ValueError(f"box: expected (4,) XYXY, got shape {np.shape(box)}")
        return [Box(*values.tolist())]

    # ---- low-resolution logits ------------------------------------------------------------------------------------

    def _extent(self) -> tuple[int, int]:
        """(height, width) of the image inside SAM's 256 x 256 logits."""
        height, width = self.original_size
        factor = LOW_RES / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def _to_low_res(self, logits: Tensor) -> np.ndarray:
        """(C, h/4, w/4) -> (C, 256, 256), padded right and bottom."""
        height, width = self._extent()
        inside = F.interpolate(logits[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        padded: np.ndarray = F.pad(inside, (0, LOW_RES - width, 0, LOW_RES - height), value=_OUTSIDE).numpy()
        return padded

    def _from_low_res(self, mask_input: np.ndarray) -> np.ndarray:
        """(1, 256, 256) -> (h/4, w/4) float32."""
        if np.shape(mask_input) != (1, LOW_RES, LOW_RES):
            raise ValueError(f"mask_input: expected shape (1, 256, 256), got {np.shape(mask_input)}")
        height, width = self._extent()
        inside = torch.tensor(np.asarray(mask_input, np.float32))[None, :, :height, :width]
        size = self.scene.geometry.mask_size
        restored: np.ndarray = F.interpolate(inside, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
        return restored


def _click_inside(logits: np.ndarray, scene: Scene) -> Click:
    """SAM takes a mask alone; SEEM's memory goes with a prompt, so the mask's surest point becomes one."""
    y, x = np.unravel_index(int(logits.argmax()), logits.shape)
    width, height = scene.size
    scale = scene.geometry.scale
    return Click(min((x * 4 + 2) / scale[0], width - 1), min((y * 4 + 2) / scale[1], height - 1))
