"""Weak scaling of expert parallelism: 2 processes with a batch each, against one process with its batch alone.

    python benchmarks/model_expert_parallel.py [--repeats 7] [--out FILE.json]

Both run in the same two gloo processes in turn, one thread each. Prints the ratio of times a step (1 is perfect), by
the clock and by CPU seconds, with quartiles; on a busy machine only the latter means something.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.parallel import Layout, parallelize

PROCESSES, BATCH, TOKENS = 2, 4, 512
CONFIG = DeepSeekConfig.preset(
    "tiny", vocab_size=4096, hidden_size=256, intermediate_size=512, moe_intermediate_size=128, num_hidden_layers=4,
    num_attention_heads=8, n_routed_experts=32, num_experts_per_tok=2, q_lora_rank=96, kv_lora_rank=64,
    qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, aux_loss_alpha=0.0,
)  # fmt: skip


def worker(repeats: int) -> dict[str, Any] | None:
    """One process: alternate a step of the whole model alone and of its half among two."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    alone = DeepSeekV3(CONFIG).train()
    part = parallelize(DeepSeekV3(CONFIG).train(), Layout(expert_model_parallel_size=PROCESSES, shard=False))
    generator = torch.Generator().manual_seed(dist.get_rank())
    taken: dict[str, list[tuple[float, float]]] = {"alone": [], "parallel": []}
    for _ in range(repeats + 1):
        ids = torch.randint(3, 4096, (BATCH, TOKENS), generator=generator)
        for name, model in (("alone", alone), ("parallel", part.module)):
            dist.barrier()
            wall, cpu = time.perf_counter(), time.process_time()
            model(ids, labels=ids, return_logits=False).loss.backward()
            if name == "parallel":
                part.sum_gradients()
            model.zero_grad()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    steps = [(a, b) for a, b in zip(taken["alone"][1:], taken["parallel"][1:], strict=True)]
    ratios = [torch.tensor([a[clock] / b[clock] for a, b in steps]) for clock in (0, 1)]
    for ratio in ratios:
        dist.all_reduce(ratio)
    found = None
    if dist.get_rank() == 0:
        traffic = part.traffic().values()
        found = {
            name: [round(q, 2) for q in statistics.quantiles((ratio / PROCESSES).tolist(), n=4)]
            for name, ratio in zip(
                ("efficiency_by_clock_quartiles", "efficiency_by_cpu_quartiles"), ratios, strict=True
            )
        }
        found["exchanged_mebibytes_per_step"] = round(sum(t["bytes"] for t in traffic) / (repeats + 1) / 2**20, 2)
    dist.destroy_process_group()
    return found


def main() -> None:
    """Command line; starts its own processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        found = worker(arguments.repeats)
        if found:
            print(json.dumps(found))
        return
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    done = subprocess.run(
        [*launch, __file__, "--repeats", str(arguments.repeats)], check=True, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = {
        "benchmark": "expert parallel, 2 processes, 32 experts, hidden 256, 4 layers, batch 4 × 512 each, fp32",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_average": os.getloadavg(),
        "versions": {"torch": torch.__version__},
        **json.loads(done.stdout.strip().splitlines()[-1]),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
