"""SEEM as a widget of napari: draw prompts in layers, get masks in a labels layer.

The widget adds four layers to the viewer. Points of "SEEM: it" and "SEEM: not it" are clicks; rectangles, polygons and
paths of "SEEM: shapes" are boxes, areas and scribbles; "SEEM: masks" gets each object's number. `Assistant` does the
work and needs no window; `make_widget` puts buttons on it.

In napari the centre of the first pixel is (0, 0), (row, column); for SEEM it is (0.5, 0.5), (x, y).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seem.prompts import Box, Click, Polygon, Prompt, Scribble, Text

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari.viewer
    from magicgui.widgets import Container

    from seem.predict.model import Model
    from seem.predict.scene import Scene
    from seem.predict.segmentation import Segmentation

IT, NOT_IT, SHAPES, MASKS = "SEEM: it", "SEEM: not it", "SEEM: shapes", "SEEM: masks"


class Assistant:
    """One viewer, one model, one object at a time.

    Args:
        viewer: a `napari.Viewer`, or a `napari.components.ViewerModel` without a window.
        model: what answers; the default model, loaded when the first object is asked for.
    """

    def __init__(self, viewer: Any, model: Model | None = None) -> None:
        self.viewer = viewer
        self.object_id = 1
        self.result: Segmentation | None = None
        self._model = model
        self._scene: Scene | None = None
        self._encoded: np.ndarray | None = None

    # ---- layers ---------------------------------------------------------------------------------------------------

    def add_layers(self) -> None:
        """The prompt layers and the masks, over the image, where they are not there yet."""
        image = self.image_layer()
        place = {"scale": image.scale[-2:], "translate": image.translate[-2:]}
        for name, colour in ((IT, "lime"), (NOT_IT, "red")):
            if name not in self.viewer.layers:
                self.viewer.add_points(name=name, ndim=2, face_color=colour, size=8, **place)
        if SHAPES not in self.viewer.layers:
            self.viewer.add_shapes(name=SHAPES, ndim=2, edge_color="lime", face_color="transparent", **place)
        if MASKS not in self.viewer.layers:
            self.viewer.add_labels(np.zeros(self.pixels().shape[:2], np.int32), name=MASKS, opacity=0.5, **place)

    def image_layer(self) -> Any:
        """The selected image, or else the topmost. Raises ValueError where there is none."""
        images = [layer for layer in self.viewer.layers if type(layer).__name__ == "Image"]
        selected = [layer for layer in images if layer in self.viewer.layers.selection]
        if not images:
            raise ValueError("layers: expected an image to segment, got none")
        return (selected or images)[-1]

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 of the image as napari shows it. Raises ValueError for stacks."""
        layer = self.image_layer()
        data = np.asarray(layer.data)
        if data.ndim != (3 if layer.rgb else 2):
            raise ValueError(f"{layer.name}: expected a 2D image, grey or RGB, got shape {data.shape}")
        if not layer.rgb:
            low, high = layer.contrast_limits
            data = np.repeat(((data.astype(float) - low) / max(high - low, 1e-12))[..., None], 3, 2)
        elif data.dtype == np.uint8:
            return np.ascontiguousarray(data[..., :3])
        elif data.dtype.kind in "ui":
            data = data / np.iinfo(data.dtype).max
        shown: np.ndarray = (data[..., :3].clip(0, 1) * 255).round().astype(np.uint8)
        return shown

    # ---- prompts --------------------------------------------------------------------------------------------------

    def prompts(self) -> list[Prompt]:
        """What is drawn, in the image's pixels."""
        found: list[Prompt] = []
        for name, positive in ((IT, True), (NOT_IT, False)):
            found += [Click(x, y, positive) for x, y in self._points(name, self._data(name))]
        if SHAPES in self.viewer.layers:
            shapes = self.viewer.layers[SHAPES]
            pairs = zip(shapes.shape_type, shapes.data, strict=True)
            found += [self._shape(kind, self._points(SHAPES, vertices)) for kind, vertices in pairs]
        return found

    @staticmethod
    def _shape(kind: str, points: list[list[float]]) -> Prompt:
        if kind == "rectangle":
            return Box(*np.min(points, 0), *np.max(points, 0))
        corners = tuple((x, y) for x, y in points)
        if kind == "polygon":
            return Polygon(corners)
        if kind in ("path", "line"):
            return Scribble(corners)
        raise ValueError(f"{SHAPES}: expected rectangles, polygons, paths and lines, got an {kind}")

    def _data(self, name: str) -> Any:
        return self.viewer.layers[name].data if name in self.viewer.layers else ()

    def _points(self, name: str, points: Any) -> list[list[float]]:
        """(row, column) of a layer -> (x, y) of the image."""
        if not len(points):
            return []
        layer, image = self.viewer.layers[name], self.image_layer()
        result = []
        for point in points:
            row, column = image.world_to_data(layer.data_to_world(point))[-2:]
            result.append([float(column) + 0.5, float(row) + 0.5])
        return result

    # ---- objects --------------------------------------------------------------------------------------------------

    def segment(self, phrase: str = "") -> Segmentation:
        """The object that the prompts mean, written into the masks.

        Raises:
            ValueError: no image, no prompt, or prompts that do not fit.
        """
        prompts = self.prompts() + ([Text(phrase)] if phrase.strip() else [])
        scene = self.scene()
        previous = self.result if self.result is not None and self.result.image == scene.digest else None
        self.result = scene.segment(*prompts, previous=previous)
        self._write(self.object_id, self.result.mask)
        return self.result

    def next_object(self) -> None:
        """Keep the mask, forget its prompts."""
        if self.result is None:
            return
        self.result = None
        self._clear_prompts()
        self.object_id = int(self._masks().max(initial=0)) + 1

    def undo_object(self) -> None:
        """Forget the object's prompts and its mask."""
        masks = self._masks()
        masks[masks == self.object_id] = 0
        self.viewer.layers[MASKS].data = masks
        self.result = None
        self._clear_prompts()

    def find(self, phrase: str) -> int:
        """Every instance of a phrase as an object of its own, the best on top; how many there are."""
        found = self.scene().find(phrase)
        start = int(self._masks().max(initial=0)) + 1
        for number, result in reversed(list(enumerate(found, start))):
            self._write(number, result.mask)
        self.object_id = start + len(found)
        self.result = None
        return len(found)

    def scene(self) -> Scene:
        """The image, encoded once."""
        pixels = self.pixels()
        if self._scene is None or self._encoded is None or not np.array_equal(pixels, self._encoded):
            if self._model is None:
                import seem

                self._model = seem.load()
            self._scene, self._encoded = self._model.encode(pixels), pixels
            self.result = None
        return self._scene

    def _masks(self) -> np.ndarray:
        self.add_layers()
        masks: np.ndarray = np.array(self.viewer.layers[MASKS].data)
        return masks

    def _write(self, number: int, mask: np.ndarray) -> None:
        masks = self._masks()
        if masks.shape != mask.shape:
            raise ValueError(f"{MASKS}: expected shape {mask.shape} as the image has, got {masks.shape}")
        masks[masks == number] = 0
        masks[mask] = number
        self.viewer.layers[MASKS].data = masks

    def _clear_prompts(self) -> None:
        for name in (IT, NOT_IT):
            self.viewer.layers[name].data = np.zeros((0, 2))
        self.viewer.layers[SHAPES].data = []


def make_widget(napari_viewer: napari.viewer.Viewer) -> Container:
    """Buttons on an `Assistant`; napari calls this for "SEEM" in its menu of plugins."""
    return widget_of(Assistant(napari_viewer))


def widget_of(assistant: Assistant) -> Container:
    """The buttons of an assistant.

    Raises:
        ImportError: magicgui, or the Qt that it needs, is not installed.
    """
    from magicgui.widgets import Container, Label, LineEdit, PushButton

    phrase = LineEdit(label="name", tooltip="what the object is called, in words")
    told = Label(value="draw prompts, then segment")

    def button(text: str, tip: str, work: Callable[[], str]) -> Any:
        made = PushButton(text=text, tooltip=tip)

        def clicked() -> None:
            try:
                told.value = work()
            except (ValueError, TypeError) as error:  # what the user can mend; a bug goes to napari
                told.value = str(error)

        made.changed.connect(clicked)
        return made

    def start() -> str:
        assistant.add_layers()
        return "click on it, or draw a shape; then segment"

    def segment() -> str:
        result = assistant.segment(phrase.value)
        return f"{assistant.object_id}: {result.label} ({result.label_score:.2f}), score {result.score:.2f}"

    def step(work: Callable[[], None]) -> str:
        work()
        return f"object {assistant.object_id}"

    return Container(
        widgets=[
            button("Add layers", "for prompts and masks", start),
            phrase,
            button("Segment", "one object, from all prompts", segment),
            button("Find all", "every instance of the name", lambda: f"{assistant.find(phrase.value)} found"),
            button("Next object", "keep this mask", lambda: step(assistant.next_object)),
            button("Forget object", "its prompts and its mask", lambda: step(assistant.undo_object)),
            told,
        ]
    )
