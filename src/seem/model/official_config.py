"""The official SEEM variants as data: architectures, decoder semantics, pre-processing and thresholds.

Facts are from SPEC sections 2 to 7 and 13. A variant is a row of ``OFFICIAL_VARIANTS``; all code is shared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from seem.model.attention_rules import REFERENCE, VISUAL
from seem.model.clip_text_encoder import ClipTextEncoderConfig
from seem.model.config import ImageConfig
from seem.model.deformable_pixel_decoder import DeformablePixelDecoderConfig
from seem.model.fpn_pixel_decoder import FPNPixelDecoderConfig
from seem.model.image_encoder.davit import DAVIT_D3, DAVIT_D5, DaViTConfig
from seem.model.image_encoder.focalnet import FOCALNET_L, FOCALNET_T, FocalNetConfig
from seem.model.image_encoder.sam_vit import SAM_VIT_B, SAM_VIT_L, SamViTConfig

ImageEncoderConfig = FocalNetConfig | DaViTConfig | SamViTConfig


@dataclass(frozen=True)
class Semantics:
    """What the same weights are made to do: the three ways in which the official code wires its decoder.

    Attributes:
        name: row of ``ATTENTION_RULES``.
        joint: True if the object queries themselves read every prompt (demo); False if copies of them do.
        queries_per_prompt: how many of the object queries are copied for a visual prompt; None = all.
        memory: whether the mask of the round before is read.
        reference_group: the token group that a region of another image belongs to.
        missing: the mean prompt embedding of an object without points of that sign.
        object_threshold: panoptic segments below this score are dropped.
        joint_matching: visual prompts choose among queries by class embeddings, as text does, not by mask embeddings;
            an ablation of the paper, which needs weights trained for it.
    """

    name: str
    joint: bool = False
    queries_per_prompt: int | None = None
    memory: bool = True
    reference_group: str = VISUAL
    missing: float = 0.0
    object_threshold: float = 0.8
    joint_matching: bool = False


SEMANTICS = {
    "v0": Semantics("v0"),
    "v1": Semantics("v1", queries_per_prompt=3, missing=-1.0),
    "demo": Semantics("demo", joint=True, memory=False, reference_group=REFERENCE, object_threshold=0.4),
}


@dataclass(frozen=True)
class OfficialDecoderConfig:
    dim: int = 512
    heads: int = 8
    hidden: int = 2048
    layers: int = 9
    queries: int = 101
    memories: int = 32
    max_points: int = 512  # of one visual prompt, per level


@dataclass(frozen=True)
class OfficialConfig:
    """One variant, complete. ``checkpoint`` is the published file, None if there is none."""

    name: str
    image_encoder: ImageEncoderConfig
    pixel_decoder: FPNPixelDecoderConfig | DeformablePixelDecoderConfig
    semantics: Semantics
    image: ImageConfig
    checkpoint: str | None = None
    prompt_decoder: OfficialDecoderConfig = field(default_factory=OfficialDecoderConfig)
    text_encoder: ClipTextEncoderConfig = field(default_factory=ClipTextEncoderConfig)
    overlap_threshold: float = 0.8  # a panoptic segment must keep this share of its area


SHORT_512 = ImageConfig(resize="short", target=512, interpolation="bicubic")
SQUARE_1024 = ImageConfig(resize="short", target=1000, max=1024, pad_to=1024, interpolation="bicubic")

# our short name -> (official short name, image encoder, semantics that the official configurations have)
_FAMILIES: dict[str, tuple[str, ImageEncoderConfig, tuple[str, ...]]] = {
    "focal-t": ("focalt", FOCALNET_T, ("v0", "v1", "demo")),
    "focal-l": ("focall", FOCALNET_L, ("v0", "v1", "demo")),
    "davit-d3": ("davitd3", DAVIT_D3, ("v1",)),
    "davit-d5": ("davitd5", DAVIT_D5, ("v1",)),
    "sam-vit-b": ("samvitb", SAM_VIT_B, ("v1",)),
    "sam-vit-l": ("samvitl", SAM_VIT_L, ("v1",)),
}


def _variants() -> dict[str, OfficialConfig]:
    variants = {}
    for short, (official, encoder, versions) in _FAMILIES.items():
        square = isinstance(encoder, SamViTConfig)
        for version in versions:
            file_version = "v0" if version == "demo" else version  # the demo runs the v0 file
            published = not isinstance(encoder, DaViTConfig)
            name = f"seem-{short}-{version}"
            variants[name] = OfficialConfig(
                name=name,
                image_encoder=encoder,
                pixel_decoder=DeformablePixelDecoderConfig() if square else FPNPixelDecoderConfig(),
                semantics=SEMANTICS[version],
                image=SQUARE_1024 if square else SHORT_512,
                checkpoint=f"seem_{official}_{file_version}.pt" if published else None,
            )
    return variants


OFFICIAL_VARIANTS: dict[str, OfficialConfig] = _variants()


def official_config(name: str) -> OfficialConfig:
    """The configuration of a named variant, also under the name of its official configuration.

    >>> official_config("focalt_unicl_lang_v1").name
    'seem-focal-t-v1'

    Raises:
        ValueError: there is no such variant.
    """
    if name in OFFICIAL_VARIANTS:
        return OFFICIAL_VARIANTS[name]
    for short, (official, _, _) in _FAMILIES.items():
        for version in SEMANTICS:
            if name == f"{official}_unicl_lang_{version}":
                base = OFFICIAL_VARIANTS.get(f"seem-{short}-{version}")
                return base or with_semantics(OFFICIAL_VARIANTS[f"seem-{short}-v1"], version)
    raise ValueError(f"unknown official variant {name!r}; expected one of {', '.join(OFFICIAL_VARIANTS)}")


def with_semantics(config: OfficialConfig, version: str) -> OfficialConfig:
    """The same network wired as "v0", "v1" or "demo"; no published file belongs to it."""
    name = config.name.rsplit("-", 1)[0] + f"-{version}"
    return replace(config, name=name, semantics=SEMANTICS[version], checkpoint=None)


def reduced(config: OfficialConfig) -> OfficialConfig:
    """The same architecture, narrow and shallow enough for a test: widths of 32 and two blocks of a kind."""
    encoder: ImageEncoderConfig
    if isinstance(config.image_encoder, FocalNetConfig):
        encoder = replace(config.image_encoder, width=16, depths=(1, 1, 2, 1))
    elif isinstance(config.image_encoder, DaViTConfig):
        encoder = replace(config.image_encoder, channels=(16, 32, 64, 128), heads=(1, 2, 4, 8), depths=(1, 1, 2, 1))
    else:
        encoder = replace(
            config.image_encoder, width=32, depth=2, heads=2, global_blocks=(1,), grid=8, channels=(16, 32, 64, 64),
            pyramid_widths=(32, 32),
        )  # fmt: skip
    return replace(
        config,
        image_encoder=encoder,
        image=replace(config.image, pad_to=128 if config.image.pad_to else None),
        pixel_decoder=replace(config.pixel_decoder, dim=32, heads=2, hidden=64, layers=2),
        prompt_decoder=OfficialDecoderConfig(
            dim=32, heads=2, hidden=64, layers=9, queries=12, memories=4, max_points=32
        ),
        text_encoder=ClipTextEncoderConfig(width=32, heads=2, layers=2, joint_dim=32),
    )
