"""The real network at widths that build in milliseconds, base weights for it, and a data set of three photos."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from seem.data.records import make_object, make_record, write_records
from seem.model.config import ImageConfig, PixelDecoderConfig, PromptDecoderConfig, SEEMConfig
from seem.model.image_encoder.efficientnet_lite import EfficientNetLiteConfig, Stage
from seem.model.image_encoder.tiny_vit import TinyViTConfig
from seem.model.prompting import VisualPrompt
from seem.model.seem import SEEM, ImageFeatures
from seem.model.sentence_encoder import SentenceEncoderConfig
from seem.training.engine import EngineConfig
from seem.training.features import write_features
from seem.training.loop import TrainConfig
from seem.training.objective import ObjectiveConfig
from seem.training.samples import read_records
from seem.training.warm_start import SAM_NAMES, warm_start

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "red",
    "green",
    "blue",
    "square",
    "disk",
    "the",
    "a",
    "on",
    "left",
    "right",
]


def tiny_config() -> SEEMConfig:
    """Every part of seem-tiny, a few channels wide, for images of 64 pixels."""
    return SEEMConfig(
        name="tiny",
        image=ImageConfig(target=64),
        image_encoder=TinyViTConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 2, 2), (3, 3, 3, 3), neck_dim=32),
        semantic_encoder=EfficientNetLiteConfig(
            4, (Stage(3, 2, 1, 4, 1), Stage(3, 2, 2, 8, 1), Stage(3, 2, 2, 8, 1), Stage(3, 2, 2, 16, 1))
        ),
        text_encoder=SentenceEncoderConfig(vocabulary=len(WORDS), width=16, depth=1, heads=2, hidden=16),
        pixel_decoder=PixelDecoderConfig(dim=32, semantic_dim=16, middle_dim=16, joint_dim=16),
        prompt_decoder=PromptDecoderConfig(
            dim=32, heads=4, cross_dim=16, ffn_dim=32, object_queries=6, memory_tokens=2, mask_dim=8, position_canvas=64
        ),
    )


def tokenizer_json() -> str:
    """A word-level tokenizer of `WORDS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    text: str = tokenizer.to_str()
    return text


def tiny_model(seed: int = 0, config: SEEMConfig | None = None) -> SEEM:
    """Random weights everywhere, also where training starts from zero, so that every path shows in the output."""
    torch.manual_seed(seed)
    model = SEEM(config or tiny_config())
    model.text_encoder.tokenizer_json = tokenizer_json()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim and not bool(p.any()):
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return model.eval()


def encode(model: SEEM, seed: int = 0, size: tuple[int, int] = (50, 64)) -> ImageFeatures:
    """A random picture of (h, w), padded as the model wants it."""
    m = model.config.image.pad_multiple
    pixels = torch.zeros(1, 3, -(-size[0] // m) * m, -(-size[1] // m) * m)
    pixels[..., : size[0], : size[1]] = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(seed))
    return model.encode_image(pixels, size)


def click(x: float, y: float, positive: bool = True) -> VisualPrompt:
    return VisualPrompt("click", positive, np.array([[x, y]], np.float32))


# ---- on disk ------------------------------------------------------------------------------------------------------


def write_base(folder: Path, config: SEEMConfig | None = None) -> None:
    """Random weights in the files that `warm_start` reads."""
    model = tiny_model(7, config)
    folder.mkdir(parents=True, exist_ok=True)
    for file, part in (
        ("tinyvit", model.image_encoder),
        ("effnet", model.semantic_encoder),
        ("minilm", model.text_encoder),
    ):
        save_file({k: v.contiguous() for k, v in part.state_dict().items()}, folder / f"{file}.safetensors")
    save_file(sam_names(model), folder / "samdec.safetensors")
    (folder / "tokenizer.json").write_text(tokenizer_json())


def sam_names(model: SEEM) -> dict[str, torch.Tensor]:
    """A model's prompt decoder as SAM would have named it: the way back of `SAM_NAMES`."""
    state, out = model.state_dict(), {}
    for sam, ours in SAM_NAMES:
        for layer in range(2) if r"\1" in ours else [0]:
            prefix = ours.replace(r"\1", str(layer))
            theirs = sam.replace(r"(\d)", str(layer)).replace("\\", "")
            found = {theirs + k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            out |= found
    tokens = [state["prompt_decoder.score_token.weight"], state["prompt_decoder.spatial_queries.weight"]]
    out["mask_decoder.tokens"] = torch.cat(tokens)
    out["prompt_encoder.no_mask_embed"] = state["prompt_decoder.no_dense.weight"][0]
    for i in range(4):
        out[f"prompt_encoder.point_embeddings.{i}.weight"] = state["visual_sampler.kind.weight"][i : i + 1]
    matrix = state["visual_sampler.position.projection"]
    out["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = matrix
    return {k: v.clone().contiguous() for k, v in out.items()}


def write_photos(folder: Path) -> list[dict[str, Any]]:
    """Three 64 x 48 photos with a coloured square and a disk, fully annotated, as training records."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:48, :64]
    records = []
    for i, colour in enumerate(("red", "green", "blue")):
        square = (xx >= 4 + 4 * i) & (xx < 24 + 4 * i) & (yy >= 8) & (yy < 32)
        disk = (xx - 46) ** 2 + (yy - 26 - 4 * i) ** 2 < 12**2
        photo = rng.integers(90, 140, (48, 64, 3))
        photo[square, i] = 250
        photo[disk, (i + 1) % 3] = 250
        path = folder / "images" / f"{i}.png"
        Image.fromarray(photo.astype(np.uint8)).save(path)
        objects = [make_object(square, f"{colour} square"), make_object(disk, "disk")]
        records.append(make_record("toy", str(i), path, (64, 48), objects, complete=True))
    return records


def write_training(folder: Path, engine: dict[str, Any] = {}, **changes: Any) -> TrainConfig:  # noqa: B006
    """Base weights, records and features of the tiny model; the config of a run on them."""
    config = TrainConfig(
        base=str(folder / "base"),
        features=str(folder / "features"),
        records=((str(folder / "toy.jsonl"), 1.0),),
        learning_rate=3e-3,
        warm_learning_rate=3e-3,
        engine=EngineConfig(**({"steps": 100, "warmup": 1} | engine)),
        model=tiny_config(),
        objective=ObjectiveConfig(objects_per_image=2, max_rounds=1, query_points=128),
    )
    if not (folder / "toy.jsonl").exists():
        write_base(folder / "base")
        write_records(write_photos(folder), folder / "toy.jsonl")
        model = warm_start(config.model, folder / "base").eval()
        write_features(model, read_records([folder / "toy.jsonl"]), folder / "features")
    return replace(config, **changes)


def write_toml(config: TrainConfig, path: Path) -> None:
    """What `TrainConfig.read` reads, as far as the tests change it."""
    records = json.dumps([list(r) for r in config.records])
    path.write_text(
        f"base = {json.dumps(config.base)}\nfeatures = {json.dumps(config.features)}\nrecords = {records}\n"
    )
