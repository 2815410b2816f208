"""Names and shapes of the published checkpoints against ours: every tensor is accounted for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from seem.model.official_config import OfficialConfig, official_config
from seem.model.official_seem import OfficialSEEM

# Official prefix <-> ours. The first that fits is taken, in both directions, so the special ones stand first.
_PREDICTOR = "sem_seg_head.predictor."
RENAMES: tuple[tuple[str, str], ...] = (
    (_PREDICTOR + "lang_encoder.lang_proj", "text_encoder.projection"),
    (_PREDICTOR + "lang_encoder.logit_scale", "text_encoder.logit_scale"),
    (_PREDICTOR + "lang_encoder.lang_encoder.", "text_encoder."),
    (_PREDICTOR + "mask_sptial_embed.", "decoder.visual_sampler.level_projection."),
    (_PREDICTOR + "pn_indicator.", "decoder.visual_sampler.sign."),
    (_PREDICTOR + "spatial_featured.", "decoder.memory_feat."),
    (_PREDICTOR + "spatial_embed.", "decoder.memory_embed."),
    (_PREDICTOR + "transformer_self_attention_layers.", "decoder.self_attention_layers."),
    (_PREDICTOR + "transformer_cross_attention_layers.", "decoder.cross_attention_layers."),
    (_PREDICTOR + "transformer_ffn_layers.", "decoder.ffn_layers."),
    (_PREDICTOR, "decoder."),
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


def official_name(ours: str) -> str:
    """The inverse of ``our_name``.

    >>> official_name("text_encoder.projection")
    'sem_seg_head.predictor.lang_encoder.lang_proj'
    """
    for official, prefix in RENAMES:
        if ours.startswith(prefix):
            return official + ours.removeprefix(prefix)
    return ours


def check_names(shapes: Mapping[str, tuple[int, ...]], config: OfficialConfig) -> None:
    """Compare official names and shapes with what the variant needs.

    Raises:
        ValueError: lists every missing, extra and misshapen tensor by its official name.
    """
    import torch

    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in OfficialSEEM(config).state_dict().items()}
    given = {our_name(name): (name, shape) for name, shape in shapes.items() if name not in IGNORED}
    problems = [f"missing: {official_name(name)} {shape}" for name, shape in wanted.items() if name not in given]
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
