"""A training step of finseek's DeepSeek-V3 against transformers' with `grouped_mm`: same weights, in turn.

    python benchmarks/model_train_step.py [--experts 8 32 64] [--repeats 9] [--out FILE.json]

Prints, for each number of experts, tokens per CPU second of both, their ratio with its quartiles over alternating
repeats, and the peak memory that one step adds in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from finseek.model import DeepSeekConfig, DeepSeekV3

BATCH, TOKENS, VOCABULARY = 4, 512, 4096


def models(experts: int) -> dict[str, Any]:
    """Both models with the same weights, in training mode."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = DeepSeekConfig.preset(
        "tiny", vocab_size=VOCABULARY, hidden_size=256, intermediate_size=512, moe_intermediate_size=128,
        num_hidden_layers=4, num_attention_heads=8, n_routed_experts=experts, num_experts_per_tok=2, q_lora_rank=96,
        kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, aux_loss_alpha=0.0,
        eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    ours = DeepSeekV3(config)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours.save_pretrained(folder)
        theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(folder, experts_implementation="grouped_mm")
    return {"finseek": ours.train(), "transformers": theirs.train()}


def stepper(name: str, model: Any) -> Callable[[torch.Tensor], float]:
    """One AdamW step on a batch; returns the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    arguments = {"return_logits": False} if name == "finseek" else {"use_cache": False}

    def step(ids: torch.Tensor) -> float:
        loss = model(ids, labels=ids, **arguments).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def batch(seed: int) -> torch.Tensor:
    """Random tokens (BATCH, TOKENS)."""
    return torch.randint(3, VOCABULARY, (BATCH, TOKENS), generator=torch.Generator().manual_seed(seed))


def compare(experts: int, repeats: int) -> dict[str, Any]:
    """Alternate steps of both models; CPU seconds of the whole process, one thread."""
    steps = {name: stepper(name, model) for name, model in models(experts).items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            start = time.process_time()
            losses[name].append(step(batch(repeat)))
            seconds[name].append(time.process_time() - start)
    seconds = {name: taken[2:] for name, taken in seconds.items()}  # after warming up
    ratios = [theirs / ours for ours, theirs in zip(seconds["finseek"], seconds["transformers"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "experts": experts,
        "tokens_per_cpu_second": {n: round(BATCH * TOKENS / statistics.median(s)) for n, s in seconds.items()},
        "ratio": round(middle, 2),
        "ratio_quartiles": [round(low, 2), round(high, 2)],
        "repeats": repeats,
        "largest_loss_difference": max(abs(a - b) for a, b in zip(*losses.values(), strict=True)),
        "step_peak_mebibytes": {name: peak(name, experts) for name in steps},
    }


def peak(name: str, experts: int) -> int:
    """What two steps add to the resident memory of a fresh process, in MiB."""
    command = [sys.executable, __file__, "--memory", name, "--experts", str(experts)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def added_memory(name: str, experts: int) -> int:
    """Run two steps of one model here and report how far the peak rises above the memory before them (Linux)."""
    model = models(experts)[name]
    step = stepper(name, model)
    step(batch(0))  # so that optimiser state and the allocator's arenas are there
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    for seed in range(1, 3):
        step(batch(seed))
    return (resident("VmHWM") - before) // 1024


def resident(kind: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(kind)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", choices=["finseek", "transformers"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print(added_memory(arguments.memory, arguments.experts[0]))
        return
    import transformers

    found = {
        "benchmark": "training step, hidden 256, 4 layers, top-2, batch 4 × 512, fp32, vocabulary 4096, one thread",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_average": os.getloadavg(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "results": [compare(experts, arguments.repeats) for experts in arguments.experts],
    }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
