"""One job under several seeds, and how far their results lie apart."""

from __future__ import annotations

import shutil
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

from finseek.core.artifacts import read_json, write_json
from finseek.core.progress import Progress, silent
from finseek.train.engines import engine_or_stand_in
from finseek.train.job import TrainJob, TrainResult
from finseek.train.state import fingerprint

SEEDS, SUMMARY = "seeds", "summary.json"


def train_seeds(job: TrainJob, progress: Progress = silent) -> tuple[TrainResult, dict[str, Any]]:
    """Train a job once for each of ``train.seeds``, or once with its own seed.

    The first seed trains in the job's folder and goes on to be judged, whatever the others reach: to choose among
    seeds by their scores would be one more look. The others train below ``seeds/``. What is done is not done again.

    Returns:
        the result of the first seed, and the summary that is left in ``seeds/summary.json``.

    Raises:
        FinseekError: whatever the engine refuses.
    """
    seeds = job.options.seeds or (job.seed,)
    engine, options = engine_or_stand_in(job.options.engine), job.options.model_copy(update={"seeds": ()})
    results = {}
    for number, seed in enumerate(seeds):
        output = job.output if number == 0 else job.output / SEEDS / f"seed-{seed}"
        done = job.output / SEEDS / f"seed-{seed}.json"
        name = f"{job.name}-seed-{seed}" if len(seeds) > 1 else job.name
        one = replace(job, name=name, output=output, seed=seed, options=options)
        if len(seeds) == 1:
            results[seed] = engine.run(one, progress)
            continue
        mark = fingerprint(one)
        kept = read_json(done) if done.exists() and output.joinpath("checkpoint").exists() else {}
        if kept.get("fingerprint") == mark:  # else another job's, which was killed here
            results[seed] = TrainResult.from_json(kept["result"])
            continue
        done.unlink(missing_ok=True)
        results[seed] = engine.run(one, progress)
        write_json(done, {"fingerprint": mark, "result": results[seed].to_json()})
    summary = spread(results)
    write_json(job.output / SEEDS / SUMMARY, summary)
    shutil.rmtree(job.output / SEEDS / "cache", ignore_errors=True)  # tokens, which the further seeds have shared
    for seed in seeds:
        (job.output / SEEDS / f"seed-{seed}.json").unlink(missing_ok=True)
    return results[seeds[0]], summary


def spread(results: dict[int, TrainResult]) -> dict[str, Any]:
    """The best validation loss of each seed, their mean, and their standard deviation (n − 1; null for one)."""
    losses = {seed: result.best_validation_loss for seed, result in results.items()}
    values = list(losses.values())
    return {
        "validation_loss": {str(seed): loss for seed, loss in losses.items()},
        "mean": mean(values),
        "standard_deviation": stdev(values) if len(values) > 1 else None,
        "lowest": min(values),
        "highest": max(values),
    }
