"""How fast five actions are scored: finseek's model beside transformers on the same checkpoint, in one process.

    python benchmarks/scoring.py [--theses FILE --prices FILE] [--rows 1516] [--repeats 3] [--out FILE.json]

transformers runs five full sequences a prompt, 32 in a batch; finseek runs each prompt once, then its five
continuations on the shared latent cache. Without files, theses and prices are synthetic. The weights are drawn, not
trained: they change no time. Repeats alternate, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers

from finseek.evaluate import EvaluateOptions, load_backend
from finseek.market import generate_prices, load_prices, snapshots
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder, PromptOptions, Sample, build_samples, train_tokenizer
from finseek.theses import read_theses
from finseek.theses.synthetic import generate_theses


def prompts(theses_file: Path | None, prices_file: Path | None, rows: int) -> list[Sample]:
    """The last theses in time, as samples."""
    if theses_file and prices_file:
        theses, _ = read_theses(theses_file)
        prices = load_prices(prices_file, tickers=sorted({thesis.ticker for thesis in theses}))
    else:
        prices, planted = generate_prices(0, n_tickers=20, n_sessions=400)
        theses = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=0).theses
    latest = sorted(theses, key=lambda thesis: thesis.as_of_date)[-rows:]
    return build_samples(latest, snapshots(prices), PromptOptions(), split="test")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--theses", type=Path)
    parser.add_argument("--prices", type=Path)
    parser.add_argument("--rows", type=int, default=1516)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    samples = prompts(given.theses, given.prices, given.rows)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        train_tokenizer([sample.input + sample.output for sample in samples], 4096, folder)
        encoder = Encoder(folder)
        ends = {"eos_token_id": encoder.end_ids[0], "pad_token_id": encoder.token_id("<｜▁pad▁｜>")}
        config = DeepSeekConfig.preset("tiny", vocab_size=encoder.vocab_size, initializer_range=0.2, **ends)
        DeepSeekV3(config).save_pretrained(folder)
        backends, times = {}, {"native": [], "huggingface": []}
        for name in times:
            backends[name] = load_backend(EvaluateOptions(backend=name, batch_size=32), folder)
        answers = {}
        for _ in range(given.repeats):
            for name, backend in backends.items():
                start = time.perf_counter()
                batches = backend.plan(samples)
                found = backend.answers([samples[i] for i in batch] for batch in batches)
                answers[name] = [answer.text for _, given_answers in found for answer in given_answers]
                times[name].append(time.perf_counter() - start)
        lengths = [len(encoder.prompt_ids(sample)) for sample in samples]
    ratios = [theirs / ours for ours, theirs in zip(times["native"], times["huggingface"], strict=True)]
    same = sum(a == b for a, b in zip(answers["native"], answers["huggingface"], strict=True))
    result = {
        "rows": len(samples),
        "mean_prompt_tokens": statistics.mean(lengths),
        "native_seconds": statistics.median(times["native"]),
        "transformers_seconds": statistics.median(times["huggingface"]),
        "ratio": [min(ratios), statistics.median(ratios), max(ratios)],
        "same_answers": same,
        "environment": {
            "cpu": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
