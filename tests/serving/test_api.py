"""The API over real HTTP, answer by answer, against what the same model says here."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import seem
from seem import geometry
from seem.model.prompting import ReferencePrompt
from seem.predict.model import Model
from seem.predict.scene import Scene
from seem.prompts import _FIELDS, PROMPT_TYPES, prompt_from_json
from seem.serving import schemas
from seem.serving.middleware import JsonLines
from seem.serving.settings import Settings
from seem.vocabulary import COCO_PANOPTIC_NAMES
from tests.conftest import BLUE_BOX, RED_BOX, box_mask
from tests.fakes import WEIGHTS
from tests.serving.conftest import BLUE, RED, Running, ask_segment, other_photo, png, running, wait_until


def first(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["segments"][0]
    return found


def error(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}
    return answer.status_code, body["error"]["code"]


# ---- model and sessions -------------------------------------------------------------------------------------------


def test_info(http: httpx.Client) -> None:
    found = http.get("/v1/info").json()
    assert (found["version"], found["model"], found["weights"]) == (seem.__version__, "fake", WEIGHTS)
    assert found["vocabulary"] == list(COCO_PANOPTIC_NAMES)
    assert len(found["things"]) == 80
    assert found["limits"]["pixels"] == Settings().limits.pixels
    assert found["decoder"] == {"available": False, "files": []}  # it is not the real network
    cat = next(s for s in found["samples"] if s["id"] == "cat")
    photo = http.get(cat["url"])
    assert photo.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(photo.content)).size == (cat["width"], cat["height"])


def test_health_and_metrics(http: httpx.Client, image: str) -> None:
    assert http.get("/health/live").json() == {"status": "live"}
    assert http.get("/health/ready").json() == {"status": "ready"}
    ask_segment(http, image, RED)
    text = http.get("/metrics").text
    assert 'seem_requests_total{method="POST",route="/v1/images/{digest}/segment",status="200"}' in text
    assert "seem_image_bytes" in text
    assert "seem_encode_waiting 0.0" in text
    assert "sha256" not in text and http.headers["X-Seem-Session"] not in text


def test_request_ids(http: httpx.Client) -> None:
    assert http.get("/health/live", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = http.get("/health/live", headers={"X-Request-Id": "a b\t<script>"}).headers["x-request-id"]
    assert len(made) == 16 and made.isalnum()
    assert http.get("/v1/nothing").headers["x-request-id"]


def test_log_is_json_and_does_not_give_sessions_away(
    http: httpx.Client, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "seem.serving"):
        ask_segment(http, image, RED)
        wait_until(lambda: caplog.records)  # it is written after the answer
    line = json.loads(JsonLines().format(caplog.records[-1]))
    assert (line["route"], line["status"], line["level"]) == ("/v1/images/{digest}/segment", 200, "info")
    assert line["ms"] > 0 and len(line["session"]) == 8
    assert http.headers["X-Seem-Session"] not in json.dumps(line)


def test_a_closed_session_is_gone(server: Running, photo_file: bytes) -> None:
    with server.http() as http:
        assert http.delete("/v1/sessions/current").status_code == 204
        answer = http.post("/v1/images", content=photo_file, headers={"Content-Type": "image/png"})
        assert error(answer) == (401, "session")


# ---- images -------------------------------------------------------------------------------------------------------


def test_upload(http: httpx.Client, photo: np.ndarray, photo_file: bytes, scene: Scene) -> None:
    answer = http.post("/v1/images", content=photo_file, headers={"Content-Type": "image/png"})
    found = answer.json()
    assert (found["image"], found["width"], found["height"]) == (scene.digest, 160, 120)
    assert found["encoded"] == [120, 160]
    assert found["scene_bytes"] == len(scene.to_bytes())


def test_the_same_photo_is_encoded_once(server: Running, photo: np.ndarray) -> None:
    pixels = other_photo(1)
    before = server.network.encodes
    for file in (png(pixels), png(pixels)):
        with server.http() as http:
            assert http.post("/v1/images", content=file, headers={"Content-Type": "image/png"}).status_code == 200
    assert server.network.encodes == before + 1


def test_sample(http: httpx.Client) -> None:
    answer = http.post("/v1/images/sample/cat")
    assert (answer.json()["width"], answer.json()["height"]) == (451, 300)
    assert error(http.post("/v1/images/sample/nothing")) == (404, "not_found")
    assert error(http.post("/v1/images/sample/..%2fcat")) in ((404, "not_found"), (405, "method"))


def test_scene_bytes_are_those_of_the_library(http: httpx.Client, image: str, scene: Scene, model: Model) -> None:
    answer = http.get(f"/v1/images/{image}/scene")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == scene.to_bytes()
    assert Scene.from_bytes(answer.content, model).digest == image
    again = http.get(f"/v1/images/{image}/scene", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_picture_is_upright_and_says_nothing_more(http: httpx.Client, photo: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010E] = "taken at home"
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", exif=exif, quality=95)
    digest = http.post("/v1/images", content=buffer.getvalue(), headers={"Content-Type": "image/jpeg"}).json()["image"]
    answer = http.get(f"/v1/images/{digest}/picture")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (120, 160)
    assert b"taken at home" not in answer.content


def test_touch(http: httpx.Client, image: str) -> None:
    assert http.post(f"/v1/images/{image}/touch").status_code == 204


# ---- prompts ------------------------------------------------------------------------------------------------------

MASK = {"type": "mask", "rle": geometry.rle_encode(box_mask(RED_BOX))}
PROMPTS: list[Any] = [
    RED,
    {"type": "box", "xyxy": [20, 30, 60, 70]},
    {"type": "scribble", "points": [[25, 35], [50, 60]], "width": 4, "positive": True},
    {"type": "polygon", "points": [[25, 35], [50, 35], [50, 60]]},
    MASK,
    {"type": "text", "text": "red"},
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda p: p["type"])
def test_every_prompt_gives_what_the_library_gives(
    http: httpx.Client, image: str, prompt: dict[str, Any], scene: Scene, model: Model
) -> None:
    found = first(ask_segment(http, image, prompt))
    same = Scene.from_bytes(scene.to_bytes(), model).segment(prompt_from_json(prompt))
    assert {k: found[k] for k in same.to_json()} == same.to_json()
    assert geometry.mask_iou(geometry.rle_decode(found["mask_rle"]), box_mask(RED_BOX)) > 0.85


def test_schemas_name_the_fields_that_prompts_have() -> None:
    """The OpenAPI document says of each prompt what `seem.prompts` reads."""
    described = {}
    for model in schemas.PROMPT_MODELS:
        fields = dict(model.model_fields)
        kind = fields.pop("type").annotation.__args__[0]  # type: ignore[union-attr]
        described[kind] = (
            {name for name, f in fields.items() if f.is_required()},
            {name for name, f in fields.items() if not f.is_required()},
        )
    assert described == _FIELDS
    assert len(schemas.PROMPT_MODELS) == len(PROMPT_TYPES)


def test_openapi_describes_every_route(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert "/v1/images/{digest}/segment" in document["paths"]
    prompt = document["components"]["schemas"]["ObjectJSON"]["properties"]["prompts"]["items"]
    assert set(prompt["discriminator"]["mapping"]) == set(_FIELDS)
    assert "/{path}" not in document["paths"]


def test_reference_of_another_image(http: httpx.Client, image: str) -> None:
    other = http.post("/v1/images", content=png(other_photo(2)), headers={"Content-Type": "image/png"}).json()["image"]
    prompt = {"type": "reference", "image": other, "prompt": {"type": "box", "xyxy": list(BLUE_BOX)}}
    found = first(ask_segment(http, image, prompt))
    assert geometry.mask_iou(geometry.rle_decode(found["mask_rle"]), box_mask(BLUE_BOX)) > 0.85


def test_several_objects_and_own_names(http: httpx.Client, image: str) -> None:
    objects = [{"id": 7, "prompts": [RED]}, {"id": 3, "prompts": [BLUE]}]
    body = {"objects": objects, "vocabulary": ["red", ["blue", "stuff"]]}
    found = http.post(f"/v1/images/{image}/segment", json=body).json()
    assert found["image"] == {"width": 160, "height": 120}
    assert [(s["id"], s["label"]) for s in found["segments"]] == [(7, "red"), (3, "blue")]
    assert http.post(f"/v1/images/{image}/segment", json=body | {"label": False}).json()["segments"][0]["label"] is None


def test_memory_by_round_and_by_mask(http: httpx.Client, image: str, scene: Scene, model: Model) -> None:
    here = Scene.from_bytes(scene.to_bytes(), model)
    one = first(ask_segment(http, image, RED))
    negative = {**BLUE, "positive": False}
    click, other = seem.Click(30, 40), seem.Click(110, 40, positive=False)
    expected = here.segment(click, other, previous=here.segment(click))
    for previous in ({"round": one["round"]}, {"round": True}):
        found = first(ask_segment(http, image, RED, negative, previous=previous))
        assert found["mask_rle"] == expected.to_rle()
        assert found["score"] == expected.score
        one = first(ask_segment(http, image, RED))
    by_mask = first(
        ask_segment(http, image, negative, previous={"rle": one["mask_rle"]})
    )  # only negative: needs memory
    assert by_mask["score"] < expected.score


def test_a_round_s_memory_for_a_decoder_elsewhere(http: httpx.Client, image: str, scene: Scene, model: Model) -> None:
    found = first(ask_segment(http, image, RED))
    answer = http.get(f"/v1/images/{image}/rounds/{found['round']}")
    logits = safetensors.numpy.load(answer.content)["logits"]
    here = Scene.from_bytes(scene.to_bytes(), model)
    assert np.array_equal(logits, here.segment(seem.Click(30, 40)).logits)
    assert error(http.get(f"/v1/images/{image}/rounds/999")) == (409, "round_gone")


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        ({"round": "999"}, (409, "round_gone")),
        ({"round": True}, (409, "round_gone")),
        ({}, (422, "invalid")),
        ({"round": "1", "rle": MASK["rle"]}, (422, "invalid")),
        ({"rle": {"size": [2, 2], "counts": [4]}}, (422, "invalid")),
        ({"rle": {"size": [120, 160], "counts": [120 * 160]}}, (422, "invalid")),
    ],
)
def test_bad_memory(http: httpx.Client, image: str, previous: Any, expected: tuple[int, str]) -> None:
    assert error(ask_segment(http, image, RED, previous=previous)) == expected


def test_find(http: httpx.Client, image: str) -> None:
    found = first(http.post(f"/v1/images/{image}/find", json={"text": "red"}))
    assert (found["id"], found["label"], found["score_kind"]) == (1, "red", "match")
    quick = http.post(f"/v1/images/{image}/find", json={"text": "red", "quick": True})
    assert first(quick)["mask_rle"] == found["mask_rle"]
    assert http.post(f"/v1/images/{image}/find", json={"text": "zebra"}).json()["segments"] == []


def test_panoptic_and_everything(http: httpx.Client, image: str, scene: Scene, model: Model) -> None:
    names = ["red", "blue", "green", ["grey", "stuff"]]
    answer = http.post(f"/v1/images/{image}/panoptic", json={"vocabulary": names, "background": True}).json()
    here = Scene.from_bytes(scene.to_bytes(), model)
    assert answer == here.panoptic(["red", "blue", "green", ("grey", "stuff")], background=True).to_json()
    regions = http.post(f"/v1/images/{image}/everything", json={"vocabulary": names}).json()["segments"]
    assert {s["label"] for s in regions} >= {"red", "blue", "green"}
    total = sum(geometry.rle_decode(s["mask_rle"]).astype(int) for s in regions)
    assert np.max(total) == 1


def test_label(http: httpx.Client, image: str) -> None:
    masks = [geometry.rle_encode(box_mask(b)) for b in (RED_BOX, BLUE_BOX)]
    body = {"mask_rle": masks, "vocabulary": ["red", "blue"], "top": 1}
    answer = http.post(f"/v1/images/{image}/label", json=body).json()
    assert [row[0]["name"] for row in answer["labels"]] == ["red", "blue"]
    one = http.post(f"/v1/images/{image}/label", json=body | {"mask_rle": masks[0], "top": 2}).json()
    assert len(one["labels"]) == 1 and len(one["labels"][0]) == 2


def test_text(http: httpx.Client, model: Model) -> None:
    answer = safetensors.numpy.load(http.post("/v1/text", json={"texts": ["red", "  a   blue car"]}).content)
    expected = model.network.encode_text(["red", "a blue car"])
    np.testing.assert_array_equal(answer["sentence"], expected.sentence.numpy())
    np.testing.assert_array_equal(answer["tokens"], expected.tokens.numpy())
    assert answer["mask"].dtype == np.uint8 and answer["mask"].tolist() == [[1], [1]]


def test_a_model_without_sendable_references_says_so(http: httpx.Client, image: str) -> None:
    answer = http.post(f"/v1/images/{image}/reference", json={"prompts": [RED]})
    assert error(answer) == (422, "invalid")


def test_reference_and_text_of_the_real_network() -> None:
    """Random weights at small width: the same tensors as the network gives itself."""
    from tests.tiny import tiny_model

    network = tiny_model()
    with running(network=network) as server, server.http() as http:  # type: ignore[arg-type]
        photo = other_photo(3)
        image = http.post("/v1/images", content=png(photo), headers={"Content-Type": "image/png"}).json()["image"]
        model = Model(network, WEIGHTS)
        scene = Scene.from_bytes(model.encode(photo).to_bytes(), model)
        answer = http.post(
            f"/v1/images/{image}/reference", json={"prompts": [{"type": "box", "xyxy": [20, 30, 60, 70]}]}
        )
        found = safetensors.numpy.load(answer.content)
        from seem.predict.encoding import visual_prompts

        visual = tuple(visual_prompts(seem.Box(20, 30, 60, 70), scene.geometry))
        known = network.encode_reference(ReferencePrompt(scene._features, visual))
        expected = network.visual_sampler.reference_tokens(known.samples, known.kinds)
        np.testing.assert_array_equal(found["tokens"], expected.detach().numpy())
        np.testing.assert_array_equal(found["embedding"], known.embedding.detach().numpy())
        texts = safetensors.numpy.load(http.post("/v1/text", json={"texts": ["red square", "disk"]}).content)
        assert texts["tokens"].shape[:2] == texts["mask"].shape


# ---- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({"type": "click", "x": 500, "y": 1}, "0 <= x < 160"),
        ({"type": "click", "x": "3", "y": 1}, "x"),
        ({"type": "click", "x": 3}, "y"),
        ({"type": "click", "x": 3, "y": 1, "more": 1}, "more"),
        ({"type": "box", "xyxy": [5, 5, 5, 9]}, "x0 < x1"),
        ({"type": "polygon", "points": [[0, 0], [1, 1], [2, 2]]}, "area"),
        ({"type": "scribble", "points": []}, "1 to 10000 points"),
        ({"type": "text", "text": "  "}, "phrase"),
        ({"type": "mask", "rle": {"size": [3, 3], "counts": [9]}}, "160x120"),
        ({"type": "mask", "rle": {"size": [120, 160], "counts": "\\\\~~"}}, "counts"),
        ({"type": "star", "x": 1}, "type"),
        ({"type": "reference", "image": "sha256:" + "0" * 64, "prompt": RED}, "uploaded"),
        ({"type": "reference", "image": "/etc/passwd", "prompt": RED}, "uploaded"),
        ("click", "prompts"),
    ],
)
def test_bad_prompts_say_what_was_expected(http: httpx.Client, image: str, prompt: Any, says: str) -> None:
    answer = ask_segment(http, image, prompt)
    assert answer.status_code in (404, 422)
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("segment", {}),
        ("segment", {"objects": []}),
        ("segment", {"objects": [{"id": 1, "prompts": []}]}),
        ("segment", {"objects": [{"id": 1, "prompts": [{**RED, "positive": False}]}]}),
        ("segment", {"objects": [{"id": 1, "prompts": [RED]}] * 2}),
        ("segment", {"objects": [{"id": -1, "prompts": [RED]}], "vocabulary": "dog"}),
        ("segment", {"objects": [{"id": 1, "prompts": [RED]}], "vocabulary": ["dog", "dog"]}),
        ("segment", {"objects": [{"id": 1, "prompts": [RED]}], "vocabulary": [["dog", "animal"]]}),
        ("segment", {"objects": [{"id": 1, "prompts": [RED]}], "weights": "/etc/passwd"}),
        ("segment", {"objects": [{"id": 1, "prompts": [RED]}], "model": "http://evil/model.pt"}),
        ("find", {"text": ""}),
        ("find", {"text": "a", "threshold": 2.0}),
        ("find", {"text": "a", "limit": 0}),
        ("panoptic", {"threshold": -1.0}),
        ("label", {"mask_rle": []}),
        ("label", {"mask_rle": MASK["rle"], "top": 0}),
        ("reference", {"prompts": []}),
    ],
)
def test_bad_requests(http: httpx.Client, image: str, path: str, body: Any) -> None:
    assert error(http.post(f"/v1/images/{image}/{path}", json=body)) == (422, "invalid")


def test_texts_have_limits(http: httpx.Client) -> None:
    for texts in ([], [""], ["a" * 1001], ["a"] * 1001):
        assert error(http.post("/v1/text", json={"texts": texts})) == (422, "invalid")


def test_decoder_files(tmp_path: Path) -> None:
    (tmp_path / "decode.onnx").write_bytes(b"graph")
    sha256 = hashlib.sha256(b"graph").hexdigest()
    with running(files={"decode.onnx": tmp_path / "decode.onnx"}) as server, server.http() as http:
        found = http.get("/v1/info").json()["decoder"]
        assert found == {"available": True, "files": [{"name": "decode.onnx", "bytes": 5, "sha256": sha256}]}
        answer = http.get("/v1/decoder/decode.onnx", params={"v": sha256})
        assert answer.content == b"graph" and "immutable" in answer.headers["cache-control"]
        assert http.get("/v1/decoder/decode.onnx").headers["cache-control"] == "no-cache"
        assert error(http.get("/v1/decoder/decode.onnx", params={"v": "0" * 64})) == (404, "not_found")
        assert error(http.get("/v1/decoder/..%2fconftest.py")) == (404, "not_found")


def test_unknown_places(http: httpx.Client) -> None:
    assert error(http.get("/v1/nothing")) == (404, "not_found")
    assert error(http.post("/v1/info")) == (405, "method")
    assert error(http.get("/v1/decoder/decode.onnx")) == (404, "not_found")
    digest = "sha256:" + "0" * 64
    assert error(ask_segment(http, digest, RED)) == (404, "not_found")
    assert error(ask_segment(http, "sha256:12", RED))[0] == 422
