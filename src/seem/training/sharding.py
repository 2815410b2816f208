"""Training a model that is too large for one GPU: its encoder's blocks live in parts on several (FSDP).

    [engine]
    sharding = "full"        # with seem train --processes N, or torchrun; precision "bfloat16" or "float32"

Only blocks of the image encoder and the pixel decoder are sharded, because only they run equally often in every
process: once a photo. How often the text encoder and the prompt decoder run depends on the photo (phrases, rounds of
clicks), so processes that had to meet in each of their layers would wait for each other for ever. Those two are 103
million parameters of every variant; what grows from Focal-T to DaViT-d5 is the image encoder, from 30 to 361 million.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from seem.model import deformable_pixel_decoder, fpn_pixel_decoder
from seem.model.image_encoder import davit, focalnet, sam_vit

BLOCKS = (
    focalnet.FocalBlock,
    davit.DualBlock,
    sam_vit.Block,
    fpn_pixel_decoder.EncoderLayer,
    deformable_pixel_decoder.EncoderLayer,
)


def blocks_of(model: nn.Module) -> list[str]:
    """Names of the blocks that `shard` splits."""
    return [name for name, module in model.named_modules() if isinstance(module, BLOCKS)]


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Split the encoders' blocks over a one-dimensional mesh, before the optimiser is made.

    A block's weights are gathered when it runs and let go afterwards; its gradients are summed over the processes.
    All processes must have built the same model.
    """
    for name in blocks_of(model):
        block = fully_shard(model.get_submodule(name), mesh=mesh)
        assert isinstance(block, FSDPModule)
        block.set_gradient_divide_factor(1.0)
        block.set_force_sum_reduction_for_comms(True)  # the only sum that gloo has


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale all gradients so that their joint norm, returned as it was, is at most ``largest``."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [whole(g.square().sum()) for g in gradients]
    norm = float(torch.stack(squares).sum().sqrt())
    for g in gradients:
        g.mul_(min(1.0, largest / (norm + 1e-6)))
    return norm


def whole(x: Tensor) -> Tensor:
    """A sharded tensor gathered, every other as it is; all processes must call it."""
    gathered: Tensor = x.full_tensor() if isinstance(x, DTensor) else x
    return gathered.detach()


def local(x: Tensor) -> Tensor:
    """This process's part of a sharded tensor, sharing its memory; every other tensor itself."""
    part: Tensor = x.to_local() if isinstance(x, DTensor) else x
    return part


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process has, split as ``like`` is."""
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
