"""finseek's DeepSeek-V3 against transformers on one GPU: training and decoding of a Moonlight-shaped slice in bf16.

    python benchmarks/model_gpu.py [--layers 6] [--batch 8] [--tokens 2048] [--repeats 7] [--out FILE.json]

Same weights, same process, in turn. Prints tokens a second of both and their ratio with quartiles; the share of the
matrix rate, measured here on 8192³ products, that our training step reaches (embedding and attention counted as in
`flops_per_token`); and the same for greedy decoding, where ours replays a CUDA graph. `--smoke` runs a tiny model for
one repeat wherever it is, to try the script.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from finseek.model import DeepSeekConfig, DeepSeekV3, flops_per_token, parameter_counts

SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "kv_lora_rank": 32,
    "num_attention_heads": 4, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16,
}  # fmt: skip


def slice_of_moonlight(layers: int, smoke: bool) -> DeepSeekConfig:
    """Moonlight-16B-A3B with fewer layers, and nothing that transformers does not train."""
    config = DeepSeekConfig.preset("moonlight-16b-a3b", num_hidden_layers=layers, num_nextn_predict_layers=0)
    config = replace(config, aux_loss_alpha=0.0, eos_token_id=None, pad_token_id=None)
    return replace(config, **SMALL) if smoke else config


def models(config: DeepSeekConfig, device: str) -> dict[str, Any]:
    """Both models on the device, with the same bf16 weights."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with torch.device(device):
        ours = DeepSeekV3(config).to(torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours.save_pretrained(folder)
        theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, experts_implementation="grouped_mm"
        )
    return {"finseek": ours, "transformers": theirs.to(device)}


def seconds(run: Callable[[], Any], device: str) -> float:
    """Time by the clock, the device's work included."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def matrix_rate(device: str, size: int) -> float:
    """Floating-point operations a second of a large bf16 product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 / statistics.median(seconds(lambda: a @ b, device) for _ in range(20))


def in_turn(runs: dict[str, Callable[[torch.Tensor], Any]], inputs: list[torch.Tensor], device: str) -> dict[str, Any]:
    """Alternate both on the same inputs, two of them to warm up: medians, ratio, quartiles."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for tokens in inputs:
        for name, run in runs.items():
            taken[name].append(seconds(lambda run=run, tokens=tokens: run(tokens), device))
    taken = {name: times[2:] for name, times in taken.items()}
    ratios = [theirs / ours for ours, theirs in zip(*taken.values(), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return {"seconds": medians, "ratio": round(middle, 2), "ratio_quartiles": [round(low, 2), round(high, 2)]}


def train(pair: dict[str, Any], given: argparse.Namespace, device: str) -> dict[str, Any]:
    """One AdamW step of each."""
    config = pair["finseek"].config
    optimizers = {
        name: torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=device == "cuda")
        for name, model in pair.items()
    }
    arguments = {"finseek": {"return_logits": False}, "transformers": {"use_cache": False}}

    def stepper(name: str) -> Callable[[torch.Tensor], None]:
        def step(ids: torch.Tensor) -> None:
            pair[name](input_ids=ids, labels=ids, **arguments[name]).loss.backward()
            optimizers[name].step()
            optimizers[name].zero_grad()

        return step

    found = in_turn({name: stepper(name) for name in pair}, batches(given, config, given.tokens, device), device)
    tokens = given.batch * given.tokens / found["seconds"]["finseek"]
    rate = matrix_rate(device, 256 if given.smoke else 8192)
    reached = tokens * flops_per_token(config, given.tokens)
    return found | {
        "tokens_per_second": round(tokens),
        "matrix_teraflops": round(rate / 1e12, 1),
        "model_teraflops": round(reached / 1e12, 1),
        "share_of_matrix_rate": round(reached / rate, 3),
    }


def decode(pair: dict[str, Any], given: argparse.Namespace, device: str) -> dict[str, Any]:
    """Greedy continuation of 32 prompts of 128 tokens."""
    new = 4 if given.smoke else 128
    answers: dict[str, torch.Tensor] = {}

    def ours(ids: torch.Tensor) -> None:
        answers["finseek"] = pair["finseek"].generate(ids, max_new_tokens=new)

    def theirs(ids: torch.Tensor) -> None:
        mask = torch.ones_like(ids)
        answers["transformers"] = pair["transformers"].generate(
            ids, attention_mask=mask, max_new_tokens=new, do_sample=False
        )

    for model in pair.values():
        model.eval()
    given.batch = 32
    prompts = batches(given, pair["finseek"].config, 128, device)
    found = in_turn({"finseek": ours, "transformers": theirs}, prompts, device)
    same = (answers["finseek"] == answers["transformers"]).float().mean()
    tokens = round(32 * new / found["seconds"]["finseek"])
    return found | {"tokens_per_second": tokens, "share_of_equal_tokens": round(float(same), 4)}


def batches(given: argparse.Namespace, config: DeepSeekConfig, tokens: int, device: str) -> list[torch.Tensor]:
    """Random tokens (batch, tokens) for each repeat and two more."""
    generator = torch.Generator().manual_seed(0)
    shape = (given.batch, tokens)
    return [
        torch.randint(3, config.vocab_size, shape, generator=generator).to(device) for _ in range(given.repeats + 2)
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.smoke:
        given.layers, given.batch, given.tokens, given.repeats = 2, 2, 32, 1
    elif not torch.cuda.is_available():
        print("no GPU here: nothing measured (--smoke tries the script)")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = slice_of_moonlight(given.layers, given.smoke)
    pair = models(config, device)
    import transformers

    found = {
        "benchmark": f"{given.layers} layers of Moonlight-16B-A3B, batch {given.batch} × {given.tokens}, bf16, AdamW",
        "machine": torch.cuda.get_device_name() if device == "cuda" else "CPU, smoke only",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "billion_parameters": round(parameter_counts(config).total / 1e9, 3),
        "training": train(pair, given, device),
        "decoding": decode(pair, given, device),
    }
    text = json.dumps(found, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
