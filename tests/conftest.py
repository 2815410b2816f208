"""Shared fixtures: a photo-like picture whose right answers are known, and a model that finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from seem.predict.model import Model
from seem.predict.scene import Scene
from tests.fakes import WEIGHTS, FakeNetwork

# The same examples on every run, and no deadline: CI machines are shared.
settings.register_profile(
    "seem", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("seem")

RED_BOX = (20, 30, 60, 70)
BLUE_BOX = (90, 20, 130, 60)
GREEN_CENTRE, GREEN_RADIUS = (110, 90), 18


def make_photo() -> np.ndarray:
    """(120, 160, 3): grey with a little noise; a red square left, a blue square and a green disk right."""
    rng = np.random.default_rng(0)
    photo = np.full((120, 160, 3), 128, np.int16)
    for box, colour in ((RED_BOX, (240, 10, 10)), (BLUE_BOX, (10, 10, 240))):
        photo[box[1] : box[3], box[0] : box[2]] = colour
    photo[green_mask()] = (10, 240, 10)
    photo += rng.integers(-8, 9, photo.shape, np.int16)
    return photo.clip(0, 255).astype(np.uint8)


def green_mask() -> np.ndarray:
    y, x = np.mgrid[:120, :160] + 0.5
    result: np.ndarray = (x - GREEN_CENTRE[0]) ** 2 + (y - GREEN_CENTRE[1]) ** 2 < GREEN_RADIUS**2
    return result


def box_mask(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((120, 160), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    return make_photo()


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def model(network: FakeNetwork) -> Model:
    return Model(network, WEIGHTS)  # type: ignore[arg-type]


@pytest.fixture
def scene(model: Model, photo: np.ndarray) -> Scene:
    return model.encode(photo)
