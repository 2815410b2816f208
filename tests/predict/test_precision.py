"""Cheaper arithmetic against the plain one: every fast path has its parity test here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import seem
from seem.geometry import mask_iou
from seem.predict import precision
from seem.predict.model import Model
from seem.predict.precision import Int8Linear, has_bfloat16_units, pick_precision, speed_up
from tests.fakes import WEIGHTS
from tests.tiny import encode, tiny_model

CPU = torch.device("cpu")
PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
TOLERANCE = {"float32": 0.0, "bfloat16": 0.1, "float16": 0.015, "int8": 0.06}  # of the largest value of a map


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network's layers are too narrow to be worth it, and have to go through it all the same."""
    monkeypatch.setattr(precision, "_LEAST_WIDTH", 8)


@pytest.mark.parametrize("name", TOLERANCE)
def test_features_stay_close_and_float32(name: str) -> None:
    plain, fast = tiny_model(), tiny_model()
    speed_up(fast, name, compile=False)
    with torch.no_grad():
        a, b = encode(plain), encode(fast)
    for part in ("embedding", "semantic", "middle", "fine"):
        expected, got = getattr(a.maps, part), getattr(b.maps, part)
        assert got.dtype == torch.float32
        error = float((got - expected).abs().max() / expected.abs().max())
        assert error <= TOLERANCE[name], (part, error)
    changed = any(not torch.equal(getattr(a.maps, p), getattr(b.maps, p)) for p in ("embedding", "semantic"))
    assert changed == (name != "float32")  # otherwise nothing was switched on


@pytest.mark.parametrize("name", ["bfloat16", "float16", "int8"])
def test_the_same_bits_every_time(name: str) -> None:
    network = tiny_model()
    speed_up(network, name, compile=False)
    with torch.no_grad():
        assert torch.equal(encode(network).maps.embedding, encode(network).maps.embedding)


@pytest.mark.parametrize("asked", [True, False])
def test_compile_is_for_both_encoders(monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    network = tiny_model()
    speed_up(network, "float32", compile=asked)
    assert compiled == ([network.image_encoder, network.semantic_encoder] if asked else [])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_inductor_gives_nearly_the_same(name: str) -> None:
    plain, fast = tiny_model(), tiny_model()
    speed_up(plain, name, compile=False)
    speed_up(fast, name, compile=True)
    with torch.no_grad():
        for size in ((50, 64), (64, 40)):  # another size: other kernels
            a, b = encode(plain, size=size), encode(fast, size=size)
            scale = float(a.maps.embedding.abs().max())
            error = float((a.maps.embedding - b.maps.embedding).abs().max()) / scale
            assert error < (1e-4 if name == "float32" else TOLERANCE[name])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 96), (1, 96), (2, 3, 96)])
def test_an_int8_layer_is_near_the_float_one(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 40, bias=bias)
    x = torch.randn(shape) * torch.tensor([1.0, 100.0]).repeat(48)
    x[..., 0, :] *= 1e-3  # a row has its own scale
    with torch.no_grad():
        expected, got = linear(x), Int8Linear(linear)(x)
    assert got.shape == expected.shape
    error = (got - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert float(error.max()) < 0.03


def test_a_row_of_zeros_gives_the_bias() -> None:
    linear = nn.Linear(64, 64)
    with torch.no_grad():
        assert torch.equal(Int8Linear(linear)(torch.zeros(1, 64))[0], linear.bias)


def test_weights_take_the_room_they_should() -> None:
    """Names stay, so that what was changed can still be looked at."""
    sizes = {}
    for name in ("float32", "bfloat16"):
        network = tiny_model()
        names = list(network.state_dict())
        speed_up(network, name, compile=False)
        assert list(network.state_dict()) == names
        sizes[name] = sum(p.nbytes for p in network.image_encoder.parameters())
    assert sizes["bfloat16"] * 2 == sizes["float32"]


# ---- what is chosen -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("units", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_asks_the_hardware(monkeypatch: pytest.MonkeyPatch, units: bool, chosen: str) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: units)
    assert pick_precision("auto", CPU) == chosen


@pytest.mark.parametrize("answer", [True, False])
def test_a_cpu_is_asked_for_amx(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: answer)
    assert has_bfloat16_units(CPU) is answer
    assert not has_bfloat16_units(torch.device("mps"))


def test_a_torch_that_cannot_say_means_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert has_bfloat16_units(CPU) is False


@pytest.mark.parametrize(("major", "answer"), [(7, False), (8, True), (9, True)])
def test_a_gpu_is_asked_for_its_generation(monkeypatch: pytest.MonkeyPatch, major: int, answer: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    assert has_bfloat16_units(torch.device("cuda")) is answer


@pytest.mark.parametrize(
    ("name", "device", "said"),
    [
        ("half", "cpu", "precision: expected one of auto, float32, bfloat16, float16, int8, got 'half'"),
        ("int8", "cuda", "precision: expected bfloat16 or float16 on cuda"),
    ],
)
def test_what_is_refused(name: str, device: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pick_precision(name, torch.device(device))


def test_load_refuses_before_it_reads_weights() -> None:
    with pytest.raises(ValueError, match="precision: expected one of"):
        seem.load("no-such-model", device="cpu", precision="half")


# ---- batches ------------------------------------------------------------------------------------------------------


def random_photos() -> list[np.ndarray]:
    """Of two shapes, in mixed order, so that groups form and order must be kept."""
    rng = np.random.default_rng(0)
    sizes = [(48, 64), (20, 64), (50, 64), (48, 64), (30, 64)]
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize("batch_size", [None, 1, 2, 8])
def test_a_batch_is_the_same_as_one_by_one(batch_size: int | None) -> None:
    model = Model(tiny_model(), WEIGHTS)
    photos = random_photos()
    together = model.encode_batch(photos, batch_size)
    for photo, scene in zip(photos, together, strict=True):
        alone = model.encode(photo)
        assert (scene.digest, scene.size, scene.geometry) == (alone.digest, alone.size, alone.geometry)
        a, b = alone.segment(seem.Click(10, 10)), scene.segment(seem.Click(10, 10))
        np.testing.assert_allclose(a.logits, b.logits, atol=1e-4 * float(np.abs(a.logits).max()))
        assert a.score == pytest.approx(b.score, abs=1e-4)


def test_a_batch_runs_the_encoder_once_for_a_size() -> None:
    network = tiny_model()
    model = Model(network, WEIGHTS)
    seen: list[tuple[int, ...]] = []
    network.image_encoder.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    model.encode_batch(random_photos(), 8)
    assert sorted(shape[0] for shape in seen) == [2, 3]


def test_other_networks_go_one_by_one(model: Model, photo: np.ndarray) -> None:
    first, second = model.encode_batch([photo, photo[:, ::-1].copy()], 4)
    assert (first.digest, second.digest) == (model.encode(photo).digest, model.encode(photo[:, ::-1].copy()).digest)


def test_an_empty_batch(model: Model) -> None:
    assert model.encode_batch([]) == []


@pytest.mark.parametrize(
    ("images", "batch_size", "error", "said"),
    [
        ("photo.jpg", 1, TypeError, "images: expected a list of images, got str"),
        (7, 1, TypeError, "images: expected a list of images, got int"),
        ([], 0, ValueError, "batch_size: expected a whole number from 1, got 0"),
        ([], True, ValueError, "batch_size: expected a whole number from 1, got True"),
        (["missing.jpg"], 1, ValueError, r"images\[0\]: .*missing.jpg"),
        ([np.zeros((4, 4, 3), np.uint8), 7], 1, TypeError, r"images\[1\]: "),
    ],
)
def test_a_bad_batch(model: Model, images: object, batch_size: int, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        model.encode_batch(images, batch_size)  # type: ignore[arg-type]


# ---- the shipped weights ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("bfloat16", 0.97), ("float16", 0.99), ("int8", 0.97)])
def test_masks_of_the_shipped_weights_stay(monkeypatch: pytest.MonkeyPatch, name: str, least: float) -> None:
    monkeypatch.undo()
    plain, fast = (seem.load(device="cpu", precision=p) for p in ("float32", name))
    assert fast.precision == name
    for photo, click in (("cat", (200, 150)), ("coins", (347, 187)), ("coffee", (300, 200))):
        first, second = (m.encode(PHOTOS / f"{photo}.jpg") for m in (plain, fast))
        a, b = first.segment(seem.Click(*click)), second.segment(seem.Click(*click))
        assert mask_iou(a.mask, b.mask) > least
        assert a.label in [name for name, _ in second.label(b, top=2)]  # a cup and a bowl are as good as even
