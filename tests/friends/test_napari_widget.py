"""The napari widget: layers to prompts to masks, on napari's own viewer model, without a window."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seem.friends import napari_widget
from seem.friends.napari_widget import IT, MASKS, NOT_IT, SHAPES, Assistant
from seem.geometry import mask_iou
from seem.predict.model import Model
from seem.prompts import Box, Click, Polygon, Scribble
from tests.conftest import BLUE_BOX, RED_BOX, box_mask
from tests.fakes import FakeNetwork

ViewerModel = pytest.importorskip("napari.components").ViewerModel
RED, BLUE = (50, 40), (40, 110)  # (row, column)


@pytest.fixture
def viewer(photo: np.ndarray) -> Any:
    viewer = ViewerModel()
    viewer.add_image(photo, name="photo")
    return viewer


@pytest.fixture
def assistant(viewer: Any, model: Model) -> Assistant:
    assistant = Assistant(viewer, model)
    assistant.add_layers()
    return assistant


def masks(assistant: Assistant) -> np.ndarray:
    return np.asarray(assistant.viewer.layers[MASKS].data)


def test_layers_are_added_once_and_lie_on_the_image(photo: np.ndarray, model: Model) -> None:
    viewer = ViewerModel()
    viewer.add_image(photo, scale=(0.5, 0.5), translate=(3, 7))
    assistant = Assistant(viewer, model)
    assistant.add_layers()
    assistant.add_layers()
    assert [layer.name for layer in viewer.layers][1:] == [IT, NOT_IT, SHAPES, MASKS]
    assert all(tuple(layer.scale) == (0.5, 0.5) and tuple(layer.translate) == (3, 7) for layer in viewer.layers)
    assert masks(assistant).shape == (120, 160)


def test_what_is_drawn_becomes_prompts(assistant: Assistant) -> None:
    layers = assistant.viewer.layers
    layers[IT].add([[50, 40], [0, 0]])
    layers[NOT_IT].add([[5.2, 6.0]])
    layers[SHAPES].add([[29.5, 19.5], [29.5, 59.5], [69.5, 59.5], [69.5, 19.5]], shape_type="rectangle")
    layers[SHAPES].add([[10, 10], [10, 20], [20, 15]], shape_type="polygon")
    layers[SHAPES].add([[40, 25], [60, 50]], shape_type="path")
    clicks, rest = assistant.prompts()[:3], assistant.prompts()[3:]
    assert [(c.x, c.y, c.positive) for c in clicks if isinstance(c, Click)] == [
        (40.5, 50.5, True), (0.5, 0.5, True), (pytest.approx(6.5), pytest.approx(5.7), False)]  # fmt: skip
    box, polygon, scribble = rest
    assert isinstance(box, Box) and (box.x0, box.y0, box.x1, box.y1) == pytest.approx(RED_BOX)
    assert isinstance(polygon, Polygon) and np.allclose(polygon.points, [(10.5, 10.5), (20.5, 10.5), (15.5, 20.5)])
    assert isinstance(scribble, Scribble) and np.allclose(scribble.points, [(25.5, 40.5), (50.5, 60.5)])


def test_points_of_a_scaled_image_are_in_its_pixels(photo: np.ndarray, model: Model) -> None:
    viewer = ViewerModel()
    viewer.add_image(photo, scale=(0.5, 0.5), translate=(3, 7))
    viewer.add_points([[3 + 0.5 * 50, 7 + 0.5 * 40]], name=IT)  # in the world, not on the image's grid
    (click,) = Assistant(viewer, model).prompts()
    assert isinstance(click, Click) and (click.x, click.y) == pytest.approx((40.5, 50.5))


def test_objects_one_after_another(assistant: Assistant) -> None:
    layers = assistant.viewer.layers
    layers[IT].add([RED])
    result = assistant.segment()
    assert mask_iou(masks(assistant) == 1, box_mask(RED_BOX)) > 0.8
    assert np.array_equal(masks(assistant) == 1, result.mask)
    assistant.next_object()
    assert (assistant.object_id, len(layers[IT].data)) == (2, 0)
    layers[IT].add([BLUE])
    assistant.segment()
    assert mask_iou(masks(assistant) == 2, box_mask(BLUE_BOX)) > 0.8
    assert (masks(assistant) == 1).any()
    assistant.undo_object()
    assert set(np.unique(masks(assistant))) == {0, 1}
    assert assistant.object_id == 2
    assistant.next_object()  # nothing was asked for: the number stays
    assert assistant.object_id == 2


def test_rounds_pass_the_mask_before(assistant: Assistant) -> None:
    """The network that segments by colour adds a tenth of the logits before to its own."""
    assistant.viewer.layers[IT].add([RED])
    first, second = assistant.segment(), assistant.segment()
    assert second.logits.max() > first.logits.max()
    assistant.undo_object()
    assistant.viewer.layers[IT].add([RED])
    assert np.array_equal(assistant.segment().logits, first.logits)


def test_names(assistant: Assistant) -> None:
    assistant.segment("the blue thing")
    assert mask_iou(masks(assistant) == 1, box_mask(BLUE_BOX)) > 0.8
    assistant.next_object()
    count = assistant.find("red")
    assert count >= 1
    assert set(np.unique(masks(assistant))) >= {1, 2}
    assert assistant.object_id == 2 + count


def test_the_image_is_encoded_once(assistant: Assistant, network: FakeNetwork, photo: np.ndarray) -> None:
    assistant.viewer.layers[IT].add([RED])
    assistant.segment()
    assistant.segment()
    assert network.encodes == 1
    assistant.viewer.layers["photo"].data = photo[:, ::-1].copy()
    assistant.segment()
    assert network.encodes == 2


@pytest.mark.parametrize(
    ("data", "rgb"),
    [
        (np.linspace(0, 1, 48).reshape(6, 8), False),
        (np.linspace(0, 60000, 48).reshape(6, 8).astype(np.uint16), False),
        (np.repeat(np.linspace(0, 1, 48).reshape(6, 8, 1), 3, 2), True),
        (np.repeat(np.linspace(0, 255, 48).reshape(6, 8, 1), 4, 2).round().astype(np.uint8), True),
        (np.repeat(np.linspace(0, 65535, 48).reshape(6, 8, 1), 3, 2).round().astype(np.uint16), True),
    ],
)
def test_images_as_they_are_shown(data: np.ndarray, rgb: bool) -> None:
    viewer = ViewerModel()
    viewer.add_image(data, rgb=rgb)
    pixels = Assistant(viewer).pixels()
    assert (pixels.shape, pixels.dtype) == ((6, 8, 3), np.uint8)
    expected = np.linspace(0, 255, 48).reshape(6, 8)
    assert np.abs(pixels[..., 1].astype(float) - expected).max() <= 1


def test_what_the_user_is_told(viewer: Any, model: Model) -> None:
    with pytest.raises(ValueError, match="layers: expected an image to segment, got none"):
        Assistant(ViewerModel(), model).add_layers()
    with pytest.raises(ValueError, match="at least one prompt"):
        Assistant(viewer, model).segment()
    stack = ViewerModel()
    stack.add_image(np.zeros((3, 6, 8)), name="stack")
    with pytest.raises(ValueError, match="stack: expected a 2D image"):
        Assistant(stack, model).segment()
    assistant = Assistant(viewer, model)
    assistant.add_layers()
    viewer.layers[SHAPES].add([[1, 1], [1, 9], [9, 9], [9, 1]], shape_type="ellipse")
    with pytest.raises(ValueError, match="got an ellipse"):
        assistant.segment()


# ---- the window's part ----------------------------------------------------------------------------------------------


def test_buttons(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
    widget = napari_widget.widget_of(assistant)
    start, phrase, segment, find, next_object, forget, told = list(widget)
    segment.changed.emit(True)
    assert "at least one prompt" in told.value
    assistant.viewer.layers[IT].add([RED])
    segment.changed.emit(True)
    assert told.value.startswith("1: ")
    next_object.changed.emit(True)
    assert told.value == "object 2"
    phrase.value = "blue"
    find.changed.emit(True)
    assert told.value.endswith(" found") and (masks(assistant) >= 2).any()
    forget.changed.emit(True)
    start.changed.emit(True)
    assert told.value.startswith("click on it")


def test_the_manifest_is_valid_and_its_command_is_there() -> None:
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(Path(napari_widget.__file__).with_name("napari.yaml"))
    manifest.validate_imports()
    (command,) = manifest.contributions.commands
    module, name = command.python_name.split(":")
    assert getattr(import_module(module), name) is napari_widget.make_widget
    assert [w.command for w in manifest.contributions.widgets] == [command.id]
