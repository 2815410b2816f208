"""Training a model that is too large for one GPU: its encoder's blocks live in parts on several (FSDP).

    from torch.distributed.device_mesh import init_device_mesh

    shard(task.model, init_device_mesh("cuda", (world,)))      # before the optimiser is made
    optimizer = torch.optim.AdamW(groups, foreach=False)       # sharded and whole parameters in one group
    ...                                                        # losses of this process, each followed by backward
    sum_gradients(parameters)
    clip_gradients(parameters, 5.0)

Only blocks of the image encoder and the pixel decoder are sharded, because only they run equally often in every
process: once a photo. How often the text encoder and the prompt decoder run depends on the photo (phrases, rounds of
clicks), so processes that had to meet in each of their layers would wait for each other for ever. Those two are 103
million parameters of every variant; what grows from Focal-T to DaViT-d5 is the image encoder, from 30 to 361 million.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from seem.model import deformable_pixel_decoder, fpn_pixel_decoder
from seem.model.image_encoder import davit, focalnet, sam_vit
from seem.model.official_seem import OfficialSEEM

BLOCKS = (
    focalnet.FocalBlock,
    davit.DualBlock,
    sam_vit.Block,
    fpn_pixel_decoder.EncoderLayer,
    deformable_pixel_decoder.EncoderLayer,
)


def shard(model: OfficialSEEM, mesh: DeviceMesh) -> list[str]:
    """Split the encoders' blocks over a one-dimensional mesh; returns their names.

    A block's weights are gathered when it runs and let go afterwards; its gradients are summed over the processes.
    All processes must have built the same model.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, BLOCKS)]
    for name in names:
        block = fully_shard(model.get_submodule(name), mesh=mesh)
        assert isinstance(block, FSDPModule)
        block.set_gradient_divide_factor(1.0)
        block.set_force_sum_reduction_for_comms(True)  # the only sum that gloo has
    return names


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of whole parameters over the processes; those of sharded ones already are."""
    for p in parameters:
        if isinstance(p, DTensor):
            continue
        if p.grad is None:  # used by no photo of this process, but perhaps by another's
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale all gradients so that their joint norm, returned as it was, is at most ``largest``."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [_whole(g.square().sum()) for g in gradients]
    norm = float(torch.stack(squares).sum().sqrt())
    for g in gradients:
        g.mul_(min(1.0, largest / (norm + 1e-6)))
    return norm


def full_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with every sharded tensor gathered; all processes must call it."""
    return {name: _whole(value) for name, value in model.state_dict().items()}


def _whole(x: Tensor) -> Tensor:
    gathered: Tensor = x.full_tensor() if isinstance(x, DTensor) else x
    return gathered.detach()
