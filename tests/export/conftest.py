from __future__ import annotations

from pathlib import Path

import pytest

from seem.predict.model import Model
from tests.fakes import WEIGHTS
from tests.tiny import tiny_model


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A small model and a folder with its decoder in float32; exporting takes a while, so all tests share it."""
    pytest.importorskip("onnxscript")
    from seem.export import export_onnx

    model = Model(tiny_model(0), WEIGHTS)
    folder = tmp_path_factory.mktemp("decoder")
    export_onnx(model, folder, "fp32", ["decoder"])
    return model, folder
