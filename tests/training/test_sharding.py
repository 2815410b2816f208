"""One step of two processes with sharded encoders against the same step of one process with both photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from seem.training.paper.objective import PaperObjective
from seem.training.sharding import BLOCKS, clip_gradients, full_state, shard, sum_gradients
from tests.training.paper import config, lesson, network

LEARNED = ("image_encoder.", "pixel_decoder.", "decoder.")
CLIP = 5.0


def optimizer_of(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, 1e-2, eps=1e-2, foreach=False)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model, c = network("v1", LEARNED), config(rounds=2)
    names = shard(model, init_device_mesh("cpu", (2,)))
    assert len(names) == sum(isinstance(m, BLOCKS) for m in model.modules()) > 0
    sharded = {n for n, p in model.named_parameters() if isinstance(p, DTensor)}
    assert {n.split(".")[0] for n in sharded} == {"image_encoder", "pixel_decoder"}
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, objective = optimizer_of(parameters), PaperObjective(model, c)
    mine = replace(lesson(model, c, rank, seed=rank), rounds=2 * rank)
    counts = objective.counts(mine)
    dist.all_reduce(counts)
    objective(mine, counts)[0].backward()
    sum_gradients(parameters)
    norm = clip_gradients(parameters, CLIP)
    optimizer.step()
    state = full_state(model)
    if rank == 0:
        save_file(state | {"norm": torch.tensor(norm)}, f"{folder}/result.safetensors")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_step_is_a_plain_step(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    result = load_file(tmp_path / "result.safetensors")

    model, c = network("v1", LEARNED), config(rounds=2)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    objective = PaperObjective(model, c)
    # unequal rounds: processes must not wait for each other in the decoder
    lessons = [replace(lesson(model, c, i, seed=i), rounds=2 * i) for i in range(2)]
    counts: Tensor = objective.counts(lessons[0]) + objective.counts(lessons[1])
    for x in lessons:
        objective(x, counts)[0].backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    norm = float(nn.utils.clip_grad_norm_(parameters, CLIP))
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    optimizer_of(parameters).step()

    assert norm > CLIP and float(result["norm"]) == pytest.approx(norm, rel=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(result[name], value, rtol=1e-4, atol=2e-6, msg=name)
    moved = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"image_encoder", "pixel_decoder", "decoder"}
