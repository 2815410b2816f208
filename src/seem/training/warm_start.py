"""A model before training: encoders and the prompt decoder's two-way part start from published weights.

`seem.checkpoints.sources` says which files they come from and checks their hashes.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from seem.model.config import SEEMConfig
from seem.model.seem import SEEM

# SAM's mask decoder and prompt encoder -> the names here
SAM_NAMES = [
    (r"mask_decoder\.transformer\.layers\.(\d)\.self_attn\.", r"prompt_decoder.two_way.\1.self_attn."),
    (r"mask_decoder\.transformer\.layers\.(\d)\.cross_attn_token_to_image\.", r"prompt_decoder.two_way.\1.to_image."),
    (
        r"mask_decoder\.transformer\.layers\.(\d)\.cross_attn_image_to_token\.",
        r"prompt_decoder.two_way.\1.from_tokens.",
    ),
    (r"mask_decoder\.transformer\.layers\.(\d)\.mlp\.lin1\.", r"prompt_decoder.two_way.\1.mlp.layers.0."),
    (r"mask_decoder\.transformer\.layers\.(\d)\.mlp\.lin2\.", r"prompt_decoder.two_way.\1.mlp.layers.1."),
    (r"mask_decoder\.transformer\.layers\.(\d)\.norm", r"prompt_decoder.two_way.\1.norm"),
    (r"mask_decoder\.transformer\.final_attn_token_to_image\.", "prompt_decoder.final_attn."),
    (r"mask_decoder\.transformer\.norm_final_attn\.", "prompt_decoder.final_norm."),
    (r"mask_decoder\.output_upscaling\.0\.", "prompt_decoder.up1."),
    (r"mask_decoder\.output_upscaling\.1\.", "prompt_decoder.up_norm."),
    (r"mask_decoder\.output_upscaling\.3\.", "prompt_decoder.up2."),
    (r"mask_decoder\.output_hypernetworks_mlps\.", "prompt_decoder.mask_embed."),
    (r"mask_decoder\.iou_prediction_head\.", "prompt_decoder.iou_head."),
    (r"prompt_encoder\.mask_downscaling\.", "prompt_decoder.dense_down."),
]


def sam_decoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SAM's decoder under this project's names; every tensor is used but the padding point's embedding."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        renamed = next((re.sub(a, b, name) for a, b in SAM_NAMES if re.match(a, name)), None)
        if renamed:
            out[renamed] = tensor
    tokens = state["mask_decoder.tokens"]  # the score token, then four mask tokens
    out["prompt_decoder.score_token.weight"] = tokens[:1]
    out["prompt_decoder.spatial_queries.weight"] = tokens[1:]
    out["prompt_decoder.grounding_queries.weight"] = tokens[1:].clone()
    out["prompt_decoder.no_dense.weight"] = state["prompt_encoder.no_mask_embed"][None]
    kinds = torch.cat([state[f"prompt_encoder.point_embeddings.{i}.weight"] for i in range(4)])
    out["visual_sampler.kind.weight"] = kinds
    out["visual_sampler.reference.weight"] = kinds[:2].clone()
    out["visual_sampler.position.projection"] = state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    return out


def warm_start(config: SEEMConfig, folder: Path, seed: int = 0) -> SEEM:
    """A SEEM whose encoders and two-way layers carry the base weights in ``folder``; the rest is freshly drawn."""
    torch.manual_seed(seed)
    model = SEEM(config)
    state: dict[str, Tensor] = {}
    for file, prefix in (("tinyvit", "image_encoder."), ("effnet", "semantic_encoder."), ("minilm", "text_encoder.")):
        state |= {prefix + k: v for k, v in load_file(folder / f"{file}.safetensors").items()}
    state |= sam_decoder(load_file(folder / "samdec.safetensors"))
    own = model.state_dict()
    foreign = sorted(k for k, v in state.items() if k not in own or own[k].shape != v.shape)
    if foreign:
        raise ValueError(f"base weights that do not fit the config: {', '.join(foreign[:8])}")
    model.load_state_dict({**own, **state})
    model.text_encoder.tokenizer_json = (folder / "tokenizer.json").read_text()
    return model
