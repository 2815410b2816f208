"""The image encoder and the text encoder as graphs of plain arrays."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from seem.model.seem import MAX_TEXT_TOKENS, SEEM


class EncodeImage(nn.Module):
    """A photo -> the four maps of a scene."""

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(1, 3, H, W) RGB, normalised and padded as `seem.model.image_input` does; H and W multiples of 32.

        Returns:
            embedding (1, dim, H/16, W/16), semantic (1, …, H/16, W/16), middle (1, …, H/8, W/8),
            fine (1, mask_dim, H/4, W/4).
        """
        maps = self.network.encode_maps(pixels)
        return maps.embedding, maps.semantic, maps.middle, maps.fine


class EncodeText(nn.Module):
    """Token ids of phrases -> what `SEEM.encode_text` returns."""

    def __init__(self, network: SEEM) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(K, T) int64 ids of the model's tokenizer and (K, T) int64, 1 = a token.

        Returns:
            sentence (K, D), L2-normalised, in the joint space; tokens (K, min(T, 16), dim) for the prompt decoder,
            meaningless where the mask is 0.
        """
        network = self.network
        tokens, sentence = network.text_encoder(ids, mask > 0)
        cut = network.text_token_projection(tokens)[:, :MAX_TEXT_TOKENS]
        return F.normalize(network.text_projection(sentence), dim=-1), cut
