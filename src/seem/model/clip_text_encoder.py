"""CLIP-style text encoder and its tokenizer.

Paper: CLIP, arXiv 2103.00020; trained with UniCL, arXiv 2204.03610. SPEC section 5.

Here against CLIP: LayerNorms have epsilon 1e-12; texts are cut to the longest one of a batch before they are encoded
(positions look back only, so what follows the end token cannot matter).
"""

from __future__ import annotations

import bz2
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seem.model.official_layers import PackedAttention
from seem.model.templates import fill_templates

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTEXT = 77
START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class ClipTextEncoderConfig:
    """Sizes; the defaults are the official ones (63.4 M parameters)."""

    vocabulary: int = 49408
    width: int = 512
    heads: int = 8
    layers: int = 12
    joint_dim: int = 512  # of the space shared with images


@cache
def clip_tokenizer() -> Tokenizer:
    """CLIP's lower-casing byte-pair tokenizer: start token, words, end token, cut to 77; padding is the end token."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    packed = files("seem").joinpath("data_files/clip_bpe_merges.txt.bz2").read_bytes()
    lines = bz2.decompress(packed).decode().splitlines()
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    symbols = _byte_symbols()
    words = [*symbols, *(s + "</w>" for s in symbols), *(left + right for left, right in merges), START, END]
    vocabulary = {word: i for i, word in enumerate(words)}
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token=END, end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ids = {token: vocabulary[token] for token in (START, END)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=list(ids.items())
    )
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(length=CONTEXT, pad_id=ids[END], pad_token=END)
    return tokenizer


def tokenize(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Texts -> ids (N, 77) long and mask (N, 77) bool, True for start token, words and end token."""
    encodings = clip_tokenizer().encode_batch(list(texts))
    ids = torch.tensor([e.ids for e in encodings], dtype=torch.long)
    return ids, torch.tensor([e.attention_mask for e in encodings], dtype=torch.bool)


def _byte_symbols() -> list[str]:
    """The printable stand-ins of the 256 bytes, in the vocabulary's order: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(others)]


class Block(nn.Module):
    """Pre-norm causal self-attention and MLP with the quick form of GELU."""

    def __init__(self, config: ClipTextEncoderConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=1e-12)
        self.attn = PackedAttention(config.width, config.heads)
        self.ln_2 = nn.LayerNorm(config.width, eps=1e-12)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(config.width, 4 * config.width), "c_proj": nn.Linear(4 * config.width, config.width)}
        )

    def forward(self, x: Tensor, blocked: Tensor) -> Tensor:
        """x (N, T, C), blocked (1, T, T) -> (N, T, C)."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, blocked)
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class ClipTextEncoder(nn.Module):
    """Token ids -> vectors in the space shared with images."""

    def __init__(self, config: ClipTextEncoderConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(CONTEXT, config.width))
        self.resblocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_final = nn.LayerNorm(config.width, eps=1e-12)
        self.projection = nn.Parameter(torch.randn(config.width, config.joint_dim) * config.width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592600))  # ln(1 / 0.07), in the log domain

    def forward(self, ids: Tensor) -> Tensor:
        """ids (N, T <= 77) -> (N, T, D), every position projected and not normalised."""
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        ahead = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)[None]
        for block in self.resblocks:
            x = block(x, ahead)
        return self.ln_final(x) @ self.projection

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Texts -> sentences (N, D) not normalised, tokens (N, T, D), mask (N, T) bool; T is the longest text's."""
        ids, mask = tokenize(texts)
        length = int(mask.sum(1).max())
        ids, mask = (t[:, :length].to(self.projection.device) for t in (ids, mask))
        tokens = self(ids)
        end = mask.sum(1) - 1
        return tokens[torch.arange(len(texts), device=end.device), end], tokens, mask

    def encode_classes(self, names: Sequence[str], templates: bool = True) -> Tensor:
        """Class names -> (K, D) of length 1: the mean over the 81 templates, or the bare name without them."""
        if not templates:
            means = unit(self.encode(names)[0])
        else:
            means = torch.stack([unit(self.encode(fill_templates(name))[0]).mean(0) for name in names])
        return means / means.norm(dim=-1, keepdim=True)


def unit(x: Tensor) -> Tensor:
    """x / (|x| + 1e-7) along the last axis."""
    return x / (x.norm(dim=-1, keepdim=True) + 1e-7)
