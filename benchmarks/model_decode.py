"""Greedy decoding of finseek's DeepSeek-V3 against transformers' `generate`: same weights, same process, in turn.

    python benchmarks/model_decode.py [--repeats 5] [--out FILE.json]

Prints new tokens per CPU second of both (prompt included in the time), the ratio with its quartiles over alternating
repeats, and whether the tokens are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from model_train_step import VOCABULARY, models

BATCH, PROMPT, NEW = 32, 128, 64


def compare(experts: int, repeats: int) -> dict[str, Any]:
    """Alternate generations of both models; CPU seconds of the whole process, one thread."""
    pair = {name: model.eval() for name, model in models(experts).items()}
    seconds: dict[str, list[float]] = {name: [] for name in pair}
    same = []
    for repeat in range(repeats + 1):
        ids = torch.randint(3, VOCABULARY, (BATCH, PROMPT), generator=torch.Generator().manual_seed(repeat))
        tokens = []
        for name, model in pair.items():
            start = time.process_time()
            if name == "finseek":
                tokens.append(model.generate(ids, max_new_tokens=NEW))
            else:
                mask = torch.ones_like(ids)
                tokens.append(model.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False))
            seconds[name].append(time.process_time() - start)
        same.append(float((tokens[0] == tokens[1]).float().mean()))
    seconds = {name: taken[1:] for name, taken in seconds.items()}
    ratios = [theirs / ours for ours, theirs in zip(seconds["finseek"], seconds["transformers"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "experts": experts,
        "tokens_per_cpu_second": {n: round(BATCH * NEW / statistics.median(s)) for n, s in seconds.items()},
        "ratio": round(middle, 2),
        "ratio_quartiles": [round(low, 2), round(high, 2)],
        "repeats": repeats,
        "share_of_equal_tokens": min(same),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experts", type=int, nargs="+", default=[8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    import transformers

    found = {
        "benchmark": "greedy decoding, batch 32, prompt 128, 64 new tokens, hidden 256, 4 layers, fp32, one thread",
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
