"""Training throughput of engine `lightning` against `trl` and `automodel`: one job, the same weights, in turn.

    python benchmarks/train_engines.py [--steps 10] [--repeats 3] [--engines lightning trl automodel] [--out FILE.json]

Prints tokens a second of each engine, as its own log tells them (median over the steps after the second, start-up
left out), and the ratio of `lightning` to each other with its range over the repeats. The losses have to agree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
from pathlib import Path

import torch

from finseek.core.actions import ACTIONS
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder, Sample, train_tokenizer, write_samples
from finseek.samples.prompts import tagged
from finseek.train import ModelInit, ParallelOptions, TrainJob, TrainOptions, load_engine

WORDS, TOKENS, BATCH, WARM_UP = 400, 256, 8, 2


def make_corpus(folder: Path, count: int) -> None:
    """Samples of about ``TOKENS`` tokens, a tokenizer and a random checkpoint."""
    rng = random.Random(0)
    vocabulary = [f"w{number}" for number in range(WORDS)]
    samples = []
    for number in range(count):
        action = ACTIONS[rng.randrange(5)].value
        output, span = tagged([("action", action), ("reasoning", " ".join(rng.choices(vocabulary, k=40)))])
        metadata = {"uid": str(number), "action": action, "action_span": span}
        samples.append(Sample(" ".join(rng.choices(vocabulary, k=TOKENS - 120)), output, metadata))
    write_samples(folder / "training.jsonl", samples)
    write_samples(folder / "validation.jsonl", samples[:BATCH])
    train_tokenizer([text for each in samples for text in (each.input, each.output)], 1024, folder / "base")
    config = DeepSeekConfig.preset(
        "tiny", vocab_size=Encoder(folder / "base").vocab_size, hidden_size=256, intermediate_size=512,
        moe_intermediate_size=128, num_hidden_layers=4, num_attention_heads=8, n_routed_experts=8,
        num_experts_per_tok=2, q_lora_rank=96, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32,
        eos_token_id=1,
    )  # fmt: skip
    DeepSeekV3(config).save_pretrained(folder / "base")


def measure(engine: str, folder: Path, output: Path, steps: int) -> tuple[float, float]:
    """Median tokens a second, and the last loss."""
    options = TrainOptions(
        engine=engine, max_steps=steps, global_batch_size=BATCH, micro_batch_size=BATCH, seq_length=2 * TOKENS,
        log_every_n_steps=1, val_check_interval=steps, checkpoint_every=steps, keep="last", check=False, threads=1,
        balance_loss=0.0, mtp_loss=0.0, router_bias_update_rate=0.0, precision="fp32",
    )  # fmt: skip
    files = {name: folder / f"{name}.jsonl" for name in ("training", "validation")}
    origin, layout = ModelInit(path=folder / "base"), ParallelOptions()
    job = TrainJob(
        **files, tokenizer=folder / "base", init=origin, output=output, options=options, parallel=layout, seed=0
    )
    log = load_engine(engine).run(job).log.read_text().splitlines()
    lines = [json.loads(line) for line in log]
    return statistics.median(line["tokens_per_second"] for line in lines[WARM_UP:-1]), lines[-1]["loss"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["lightning", "trl", "automodel"])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {engine: [] for engine in given.engines}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_corpus(folder, BATCH * given.steps)
        for repeat in range(given.repeats):
            for engine in given.engines:
                rate, losses[engine] = measure(engine, folder, folder / f"{engine}-{repeat}" / "train", given.steps)
                rates[engine].append(rate)
    first = given.engines[0]
    for engine in given.engines:
        ratios = [ours / theirs for ours, theirs in zip(rates[first], rates[engine], strict=True)]
        print(
            f"{engine:10} {statistics.median(rates[engine]):8.0f} tokens/s   {first} is {statistics.median(ratios):.2f}"
            f" times as fast [{min(ratios):.2f}, {max(ratios):.2f}]   last loss {losses[engine]:.5f}"
        )
    if given.out:
        about = {"torch": torch.__version__, "cpus": os.cpu_count(), "machine": platform.machine()}
        given.out.write_text(json.dumps({"rates": rates, "losses": losses, "environment": about}, indent=1) + "\n")


if __name__ == "__main__":
    main()
