"""One of several gloo processes: trains a small model split by a layout and compares it with the whole model.

torchrun --nproc-per-node P model_worker.py RESULT.json      prints nothing; rank 0 writes the largest differences
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.loss import Targets, next_token_loss
from finseek.model.parallel import Layout, ParallelModel, build_mesh, parallelize, pipeline_schedule

CONFIG = DeepSeekConfig.preset(
    "tiny", vocab_size=61, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=3,
    num_attention_heads=4, n_routed_experts=8, n_group=4, topk_group=2, kv_lora_rank=16, q_lora_rank=12,
    qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8, initializer_range=0.2, aux_loss_alpha=0.01,
    num_nextn_predict_layers=1, n_shared_experts=1,
)  # fmt: skip
LAYOUTS = {
    2: {
        "EP 2": Layout(expert_model_parallel_size=2, shard=False),
        "EP 2, FSDP": Layout(expert_model_parallel_size=2),
        "TP 2": Layout(tensor_model_parallel_size=2, shard=False),
        "FSDP 2": Layout(),
        "DP 2": Layout(shard=False),
        "PP 2": Layout(pipeline_model_parallel_size=2, shard=False),
    },
    4: {
        "EP 4": Layout(expert_model_parallel_size=4, shard=False),
        "EP 2 × EDP 2, FSDP": Layout(expert_model_parallel_size=2),
        "EP 2 × TP 2": Layout(expert_model_parallel_size=2, tensor_model_parallel_size=2, shard=False),
        "EP 2 × TP 2, FSDP": Layout(expert_model_parallel_size=2, tensor_model_parallel_size=2),
        "EP 2 × PP 2": Layout(expert_model_parallel_size=2, pipeline_model_parallel_size=2, shard=False),
    },
}
OPTIMISERS = {
    torch.float32: lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    torch.float64: lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
}


def build(dtype: torch.dtype, config: DeepSeekConfig = CONFIG) -> DeepSeekV3:
    """A model whose routing is crowded: one expert gets nothing, one most."""
    model = DeepSeekV3(config, seed=1).to(dtype).train()
    for router in model.routers().values():
        router.e_score_correction_bias[3] = -9.0
        router.e_score_correction_bias[6] = 0.4
    return model


def batch() -> tuple[Tensor, Tensor]:
    """Rows with very different numbers of labels."""
    ids = torch.randint(3, 61, (8, 11), generator=torch.Generator().manual_seed(0))
    unlabelled = torch.tensor([0, 9, 4, 2, 7, 1, 8, 3])[:, None]
    return ids, ids.masked_fill(torch.arange(11) < unlabelled, -100)


def compare(ours: dict[str, Tensor], whole: dict[str, Tensor]) -> float:
    """The largest difference as a part of each tensor's own maximum."""
    worst = 0.0
    for name, tensor in ours.items():
        top = whole[name].abs().max().clamp_min(1e-12)
        worst = max(worst, float((tensor - whole[name]).abs().max() / top))
    return worst


def gradients(model: DeepSeekV3) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def worst_of(difference: float) -> float:
    value = torch.tensor(difference, dtype=torch.float64)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return float(value)


def run(layout: Layout, dtype: torch.dtype, folder: Path) -> dict[str, float]:
    """Three steps of the split and of the whole model."""
    whole = build(dtype)
    ids, labels = batch()
    count = (labels[:, 1:] != -100).sum()
    part = parallelize(build(dtype), layout)
    coordinate, sizes = part.mesh.get_coordinate(), part.mesh.shape
    row = coordinate[1] * sizes[2] + coordinate[2]
    mine = torch.arange(8).chunk(layout.data_parallel_size(dist.get_world_size()))[row]
    ours_step, whole_step = OPTIMISERS[dtype](part.module.parameters()), OPTIMISERS[dtype](whole.parameters())
    found = {"logits": 0.0, "loss": 0.0, "gradients": 0.0, "empty_expert_rows": 0.0}
    choices: list[Tensor] = []
    for router in part.module.routers().values():
        router.register_forward_hook(lambda *call: choices.append(call[-1].experts))
    for _ in range(3):
        ours_step.zero_grad()
        whole_step.zero_grad()
        out = part.module(ids[mine], labels=labels[mine], loss_denominator=count)
        out.loss.backward()
        part.sum_gradients()
        expected = whole(ids, labels=labels, loss_denominator=count)
        expected.loss.backward()
        loss = out.loss.detach().clone()
        dist.all_reduce(loss, group=part.data)
        found["logits"] = max(found["logits"], compare({"": out.logits.detach()}, {"": expected.logits.detach()[mine]}))
        found["loss"] = max(found["loss"], abs(float(loss / expected.loss.detach() - 1)))
        found["gradients"] = max(found["gradients"], compare(part.full_state("gradients"), gradients(whole)))
        found["empty_expert_rows"] += float(whole.routers()[1].load[3])
        ours_step.step()
        whole_step.step()
        part.update_router_bias(0.01)
        whole.update_router_bias(0.01)
    found["weights"] = compare(part.full_state(), whole.state_dict())
    part.save_pretrained(folder)
    saved = DeepSeekV3.from_pretrained(folder).state_dict()
    found["saved"] = compare(saved, {name: tensor.to(saved[name].dtype) for name, tensor in whole.state_dict().items()})
    found["traffic"] = traffic_error(part, choices, sizes[2], coordinate[2])
    return {name: worst_of(value) for name, value in found.items()}


def traffic_error(part: ParallelModel, choices: list[Tensor], P: int, rank: int) -> float:
    """Bytes counted against remote rows × hidden × 2 directions plus the sizes, summed over the processes."""
    remote = sum(int((experts // (8 // P) != rank).sum()) for experts in choices)
    width = 32 * part.module.lm_head.weight.element_size()
    exchanges = part.traffic().values()
    calls = len(choices) if exchanges else 0
    counted, expected = (
        torch.tensor([float(sum(t[kind] for t in exchanges)) for kind in ("remote_rows", "bytes")]),
        torch.tensor([remote, 2 * remote * width + calls * (P - 1) * (8 // P) * 8], dtype=torch.float32),
    )
    dist.all_reduce(counted)
    dist.all_reduce(expected)
    return float((counted - expected).abs().max()) if exchanges else 0.0


def run_pipeline(layout: Layout, dtype: torch.dtype, _: Path) -> dict[str, float]:
    """The same through a pipeline of two stages and four microbatches."""
    config = replace(CONFIG, aux_loss_alpha=0.0, num_nextn_predict_layers=0)
    whole, split = build(dtype, config), build(dtype, config)
    ids, labels = batch()
    count = (labels[:, 1:] != -100).sum()
    world = dist.get_world_size()
    mesh = build_mesh(layout, world, "cpu")
    parts = []
    schedule = pipeline_schedule(
        split,
        mesh.get_group("pp"),
        2,
        (8 // layout.data_parallel_size(world) // 2, 11),
        lambda logits, target: next_token_loss(logits, None, Targets(target, denominator=count), 1, logits).mean,
        prepare=lambda model: parts.append(parallelize(model, layout, mesh)),
    )
    (part,) = parts
    stage, row = mesh.get_coordinate()[0], mesh.get_coordinate()[2]
    mine = torch.arange(8).chunk(layout.data_parallel_size(world))[row]
    ours_step, whole_step = OPTIMISERS[dtype](split.parameters()), OPTIMISERS[dtype](whole.parameters())
    found = {"logits": 0.0, "loss": 0.0, "gradients": 0.0}
    for _ in range(3):
        ours_step.zero_grad()
        whole_step.zero_grad()
        expected = whole(ids, labels=labels, loss_denominator=count)
        expected.loss.backward()
        if stage == 0:
            schedule.step(ids[mine])
        else:
            losses: list[Tensor] = []
            logits = schedule.step(target=labels[mine], losses=losses)
            loss = torch.stack(losses).sum().detach()
            dist.all_reduce(loss, group=part.data)
            found["logits"] = max(found["logits"], compare({"": logits}, {"": expected.logits.detach()[mine]}))
            found["loss"] = max(found["loss"], abs(float(loss / expected.loss.detach() - 1)))
        part.sum_gradients()
        found["gradients"] = max(found["gradients"], compare(part.full_state("gradients"), gradients(whole)))
        ours_step.step()
        whole_step.step()
        part.update_router_bias(0.01)
        whole.update_router_bias(0.01)
    found["weights"] = compare(part.full_state(), whole.state_dict())
    return {name: worst_of(value) for name, value in found.items()}


def main(result: Path) -> None:
    """Run every layout of this number of processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {}
    for name, layout in LAYOUTS[dist.get_world_size()].items():
        for dtype in OPTIMISERS:
            piped = layout.pipeline_model_parallel_size > 1
            found[f"{name}, {dtype}"] = (run_pipeline if piped else run)(layout, dtype, result.parent)
    if dist.get_rank() == 0:
        result.write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
