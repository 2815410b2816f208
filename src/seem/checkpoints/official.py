"""Names and shapes of the published checkpoints against ours: every tensor is accounted for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from seem.model.official_config import OfficialConfig, official_config
from seem.model.official_seem import OfficialSEEM

# Official prefix -> ours. The first that fits is taken, so the special ones stand first.
RENAMES: tuple[tuple[str, str], ...] = (
    ("sem_seg_head.predictor.lang_encoder.lang_encoder.", "text_encoder."),
    ("sem_seg_head.predictor.lang_encoder.lang_proj", "text_encoder.projection"),
    ("sem_seg_head.predictor.lang_encoder.", "text_encoder."),
    ("sem_seg_head.predictor.mask_sptial_embed.", "decoder.visual_sampler.level_projection."),
    ("sem_seg_head.predictor.pn_indicator.", "decoder.visual_sampler.sign."),
    ("sem_seg_head.predictor.spatial_featured.", "decoder.memory_feat."),
    ("sem_seg_head.predictor.spatial_embed.", "decoder.memory_embed."),
    ("sem_seg_head.predictor.transformer_", "decoder."),
    ("sem_seg_head.predictor.", "decoder."),
    ("sem_seg_head.pixel_decoder.", "pixel_decoder."),
    ("backbone.", "image_encoder."),
)
# Buffers of the training code: they may be there or not (demo has no criterion) and say nothing about the model.
IGNORED = frozenset({"dilation_kernel", "criterion.empty_weight"})


def our_name(official: str) -> str:
    """The name of an official tensor in ``OfficialSEEM``; unknown ones keep their name.

    >>> our_name("sem_seg_head.predictor.transformer_ffn_layers.0.norm.bias")
    'decoder.ffn_layers.0.norm.bias'
    """
    for prefix, ours in RENAMES:
        if official.startswith(prefix):
            return ours + official.removeprefix(prefix)
    return official


def check_names(shapes: Mapping[str, tuple[int, ...]], config: OfficialConfig) -> None:
    """Compare official names and shapes with what the variant needs.

    Raises:
        ValueError: lists every missing, extra and misshapen tensor, by its official name where it has one.
    """
    import torch

    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in OfficialSEEM(config).state_dict().items()}
    given = {our_name(name): (name, shape) for name, shape in shapes.items() if name not in IGNORED}
    problems = [f"missing: {name} {shape}" for name, shape in wanted.items() if name not in given]
    for name, (official, shape) in given.items():
        if name not in wanted:
            problems.append(f"extra: {official} {tuple(shape)}")
        elif tuple(shape) != wanted[name]:
            problems.append(f"misshapen: {official} is {tuple(shape)}, expected {wanted[name]}")
    if problems:
        shown = "\n  ".join(problems[:40])
        more = f"\n  and {len(problems) - 40} more" if len(problems) > 40 else ""
        raise ValueError(f"not a checkpoint of {config.name}: {len(problems)} tensors differ\n  {shown}{more}")


def convert_state_dict(official: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """An official state dict -> the state dict of ``OfficialSEEM`` for the variant ``name``.

    Raises:
        ValueError: unknown variant, or a tensor is missing, extra or misshapen; all of them are listed.
    """
    config = official_config(name)
    check_names({key: tuple(value.shape) for key, value in official.items()}, config)
    return {our_name(key): value for key, value in official.items() if key not in IGNORED}
