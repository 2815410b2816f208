"""A sentence encoder: one vector per text, one vector per token.

Paper: Sentence-BERT, arXiv 1908.10084; BERT, arXiv 1810.04805; the distillation MiniLM, arXiv 2002.10957.
Source of the weights: ``sentence-transformers/all-MiniLM-L6-v2`` (Apache-2.0), 6 layers of width 384.

Here against the published model:
- queries, keys and values are one linear layer; the pooler, which the sentence vector does not use, is left out;
- the embedding of token type 0, a constant, is added to the position embeddings, and only the positions that
  ``max_tokens`` allows are kept (``checkpoint_filter`` does both);
- no dropout.

Blocks are post-norm: x = LN(x + attention(x)); x = LN(x + MLP(x)).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class SentenceEncoderConfig:
    """Sizes; the defaults are all-MiniLM-L6-v2 (22.4 M parameters, of which 11.7 M are word embeddings)."""

    vocabulary: int = 30522
    width: int = 384
    depth: int = 6
    heads: int = 12
    hidden: int = 1536
    max_tokens: int = 64  # [CLS] and [SEP] included; longer texts are cut
    norm_eps: float = 1e-12


class Block(nn.Module):
    """Self-attention and MLP, each followed by a residual and a LayerNorm."""

    def __init__(self, config: SentenceEncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.fc1 = nn.Linear(config.width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (N, T, C), mask (N, 1, 1, T) bool, True where a key is a token -> (N, T, C)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, T, C/heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)  # (N, T, C)
        x = self.attention_norm(x + self.out(y))
        out: Tensor = self.mlp_norm(x + self.fc2(F.gelu(self.fc1(x))))
        return out


class SentenceEncoder(nn.Module):
    """Texts to token vectors and a sentence vector.

    Args:
        config: sizes.
        tokenizer_json: content of the ``tokenizer.json`` that belongs to the weights. Only ``tokenize`` needs it;
            without it the module works on token ids.

    Example:
        >>> config = SentenceEncoderConfig(vocabulary=50, width=8, depth=1, heads=2, hidden=16)
        >>> tokens, sentence = SentenceEncoder(config)(torch.tensor([[1, 7, 2]]), torch.ones(1, 3, dtype=torch.bool))
        >>> tuple(tokens.shape), tuple(sentence.shape)
        ((1, 3, 8), (1, 8))
    """

    def __init__(self, config: SentenceEncoderConfig | None = None, tokenizer_json: str | None = None) -> None:
        super().__init__()
        self.config = config = config or SentenceEncoderConfig()
        self.tokenizer_json = tokenizer_json
        self._tokenizer: Tokenizer | None = None
        self.word_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.max_tokens, config.width)
        self.embedding_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.apply(_initialise)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode token ids.

        Args:
            ids: (N, T) long, T <= max_tokens.
            mask: (N, T) bool, True where there is a token; at least one per row.

        Returns:
            tokens (N, T, width), meaningless where the mask is False; and the sentence (N, width), the mean over
            the tokens with length 1. Both in the dtype of the weights. Padding changes them by rounding only.
        """
        x = self.word_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]  # (N, T, C)
        x = self.embedding_norm(x)
        for block in self.blocks:
            x = block(x, mask[:, None, None, :])
        weight = mask.unsqueeze(-1).to(x.dtype)  # (N, T, 1)
        sentence = (x * weight).sum(1) / weight.sum(1)  # (N, C)
        return x, F.normalize(sentence, dim=-1)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Lower-case and split texts into WordPieces, cut at ``max_tokens`` and padded to the longest.

        Args:
            texts: N strings; N may be 0.

        Returns:
            ids (N, T) long and mask (N, T) bool, on the device of the weights.

        Raises:
            RuntimeError: the encoder was built without ``tokenizer_json``.
            TypeError: ``texts`` is one string instead of a sequence of them.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a sequence of strings, got one string {texts!r}")
        if self._tokenizer is None:
            self._tokenizer = self._build_tokenizer()
        encodings = self._tokenizer.encode_batch(list(texts))
        length = len(encodings[0].ids) if encodings else 1
        device = self.word_embedding.weight.device
        ids = torch.tensor([e.ids for e in encodings], dtype=torch.long, device=device).view(-1, length)
        mask = torch.tensor([e.attention_mask for e in encodings], dtype=torch.bool, device=device).view(-1, length)
        return ids, mask

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """``tokenize`` and ``forward``: tokens (N, T, width), mask (N, T) bool, sentence (N, width)."""
        ids, mask = self.tokenize(texts)
        tokens, sentence = self(ids, mask)
        return tokens, mask, sentence

    def _build_tokenizer(self) -> Tokenizer:
        if self.tokenizer_json is None:
            raise RuntimeError("this SentenceEncoder has no tokenizer; pass tokenizer_json= to tokenize text")
        from tokenizers import Tokenizer  # not needed when embeddings were computed beforehand

        tokenizer = Tokenizer.from_str(self.tokenizer_json)
        # The published file asks for padding to 128 always, which would triple the cost of a class name.
        padding = tokenizer.padding or {}
        tokenizer.enable_padding(pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]"))
        tokenizer.enable_truncation(self.config.max_tokens)
        return tokenizer


def _initialise(module: nn.Module) -> None:
    """Initial weights: | linear, embedding | normal, std 0.02 | bias | zero | LayerNorm | 1 and 0 |."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


_RENAMES = (
    ("attention.output.dense", "out"),
    ("attention.output.LayerNorm", "attention_norm"),
    ("intermediate.dense", "fc1"),
    ("output.dense", "fc2"),
    ("output.LayerNorm", "mlp_norm"),
)


def checkpoint_filter(
    state_dict: Mapping[str, Tensor], config: SentenceEncoderConfig | None = None
) -> dict[str, Tensor]:
    """Translate a published BERT state dict (``embeddings.*``, ``encoder.layer.*``) to this module's.

    A state dict that is already this module's comes back unchanged.
    """
    if "word_embedding.weight" in state_dict:
        return dict(state_dict)
    config = config or SentenceEncoderConfig()
    positions = state_dict["embeddings.position_embeddings.weight"][: config.max_tokens]
    result = {
        "word_embedding.weight": state_dict["embeddings.word_embeddings.weight"],
        "position_embedding.weight": positions + state_dict["embeddings.token_type_embeddings.weight"][0],
        "embedding_norm.weight": state_dict["embeddings.LayerNorm.weight"],
        "embedding_norm.bias": state_dict["embeddings.LayerNorm.bias"],
    }
    layers = sorted({int(m[1]) for name in state_dict if (m := re.match(r"encoder\.layer\.(\d+)\.", name))})
    for i in layers:
        theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
        for part in ("weight", "bias"):
            qkv = [state_dict[f"{theirs}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            result[f"{ours}.qkv.{part}"] = torch.cat(qkv)
            for foreign, own in _RENAMES:
                result[f"{ours}.{own}.{part}"] = state_dict[f"{theirs}.{foreign}.{part}"]
    return result
