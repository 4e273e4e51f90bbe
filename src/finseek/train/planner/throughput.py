"""How fast a layout is: an estimate from a published share of the GPU's peak, and it says so."""

from __future__ import annotations

from math import log2

from finseek.model.flops import flops_per_token
from finseek.train.planner.hardware import Hardware
from finseek.train.planner.workload import Layout, Workload

SPLIT_COST = 0.95  # assumed: what each doubling of TP or CP leaves of the speed


def tokens_per_second(work: Workload, layout: Layout, hardware: Hardware) -> float:
    """Tokens of the whole job a second: GPUs · share of peak · peak / operations, less the pipeline's bubble.

    An adapter spares the weight gradients (a third). A pipeline of p stages and m passes works m / (m + p − 1) of the
    time (arXiv 1811.06965); each doubling of TP or CP costs 5 % (assumed); replicas beyond the global batch idle.
    Recomputation is in the published share of peak.
    """
    operations = flops_per_token(work.config, work.seq_length) * (1 if work.trainable is None else 2 / 3)
    passes = max(work.global_batch_size // (work.micro_batch_size * layout.data), 1)
    bubble = passes / (passes + layout.pipeline - 1)
    busy = min(work.global_batch_size / (work.micro_batch_size * layout.data), 1.0)
    split = SPLIT_COST ** log2(layout.tensor * layout.context)
    speed = layout.gpus * hardware.tflops * 1e12 * hardware.share * bubble * busy * split
    return float(speed / operations)


def hours(work: Workload, speed: float) -> float | None:
    """Of the whole training at so many tokens a second; None where its length is not known."""
    if work.steps is None:
        return None
    return work.steps * work.global_batch_size * work.seq_length / speed / 3600
