"""The exported encoders give what the network's own give, for any size of photo and length of phrase."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seem.export import export_onnx, runner
from seem.predict.model import Model
from tests.fakes import WEIGHTS
from tests.tiny import tiny_model

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def share(got: np.ndarray, want: torch.Tensor) -> float:
    """Largest difference as a share of the largest value."""
    assert got.shape == want.shape
    return float(np.abs(got - want.numpy()).max() / want.abs().max())


@pytest.mark.slow
def test_encoders(tmp_path: Path) -> None:
    model = Model(tiny_model(0), WEIGHTS)
    network = model.network
    written = export_onnx(model, tmp_path, "fp32", ["image", "text"])
    assert [path.name for path in written] == ["image.onnx", "text.onnx", "tokenizer.json"]
    sessions = runner.load_graphs(written)
    for height, width in ((64, 64), (32, 96), (96, 32), (32, 32)):  # one window, several, and filled-up ones
        pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            maps = network.encode_maps(pixels)
        want = (maps.embedding, maps.semantic, maps.middle, maps.fine)
        for got, expected in zip(sessions["image"].run(None, {"pixels": pixels.numpy()}), want, strict=True):
            assert share(got, expected) <= 1e-4
    phrases = ["red", "the green disk on the left", "a square"]
    ids, mask = network.text_encoder.tokenize(phrases)
    sentence, tokens = sessions["text"].run(None, {"ids": ids.numpy(), "mask": mask.long().numpy()})
    with torch.no_grad():
        known = network.encode_text(phrases)
    assert share(sentence, known.sentence) <= 1e-4
    for i in range(len(phrases)):
        count = int(known.mask[i].sum())
        assert share(tokens[i, :count], known.tokens[i, :count]) <= 1e-4
