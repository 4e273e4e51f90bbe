"""FP8 to BF16 on 2 GB in DeepSeek-V3's shapes: ours, the same pipeline without arithmetic, and the naive way.

Needs about 8 GB under a temporary folder (--folder chooses where) and removes them. Each variant runs in a process of
its own, so that peak memory is its own; variants take turns, each turn in an order of its own, for what one leaves to
the disk (blocks to discard, pages to write back) slows the next; ratios are within a turn.

    python benchmarks/checkpoint_dequantize.py [--parts pipeline memory kernels] [--turns 3] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

EXPERT = {"gate_proj": (2048, 7168), "up_proj": (2048, 7168), "down_proj": (7168, 2048)}
ATTENTION = {
    "q_a_proj": (1536, 7168), "q_b_proj": (24576, 1536), "kv_a_proj_with_mqa": (576, 7168),
    "kv_b_proj": (32768, 512), "o_proj": (7168, 16384),
}  # fmt: skip
BLOCK = 128
PARTS = ("pipeline", "memory", "kernels")


def make_source(folder: Path, nbytes: int, shards: int) -> None:
    """Random FP8 in DeepSeek's shapes, norms in BF16, and each weight's scale in the next shard."""
    from finseek.checkpoint.stream.direct import Output
    from finseek.checkpoint.stream.plan import Out, ShardPlan, plan_shards

    folder.mkdir()
    rng = np.random.default_rng(0)
    weights, layer = [Out(f"model.layers.0.self_attn.{n}.weight", "F8_E4M3", s) for n, s in ATTENTION.items()], 0
    while sum(w.nbytes for w in weights) < nbytes:
        weights += [Out(f"model.layers.1.mlp.experts.{layer}.{n}.weight", "F8_E4M3", s) for n, s in EXPERT.items()]
        layer += 1
    held: list[list[Out]] = [[] for _ in range(shards)]
    for k, weight in enumerate(weights):
        place = k * shards // len(weights)
        grid = tuple(-(-n // BLOCK) for n in weight.shape)
        held[place].append(weight)
        held[place].append(Out(f"norm.{k}.weight", "BF16", (7168,)))
        held[(place + 1) % shards].append(Out(weight.name + "_scale_inv", "F32", grid))
    noise = rng.integers(0, 256, 1 << 24, dtype=np.uint8)
    noise[(noise & 0x7F) == 0x7F] = 0
    weight_map = {}
    for k, tensors in enumerate(held):
        (plan,) = plan_shards([tuple(tensors)], 1 << 62)
        plan = ShardPlan(f"model-{k + 1:05d}-of-{shards:05d}.safetensors", plan.header, plan.begins, plan.length)
        output = Output(folder / plan.file, folder / f".{plan.file}.partial", plan.length)
        output.write(np.frombuffer(plan.header, np.uint8), 0)
        for out in tensors:
            data = np.resize(noise, out.nbytes) if out.dtype == "F8_E4M3" else np.zeros(out.nbytes, np.uint8)
            if out.dtype == "F32":
                data = rng.uniform(1e-4, 1e-2, out.nbytes // 4).astype(np.float32).view(np.uint8)
            output.write(data, plan.begins[out.name])
            weight_map[out.name] = plan.file
        output.finish()
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}, "torch_dtype": "x"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def ours(source: Path, folder: Path, on_nan: str = "stop", kernel: str = "auto") -> None:
    """The streaming conversion."""
    from finseek.checkpoint import DequantizeOptions, StreamOptions, dequantize_checkpoint

    stream = StreamOptions(kernel=kernel, shard_bytes=1_000_000_000)
    dequantize_checkpoint(source, folder, DequantizeOptions(on_nan=on_nan, stream=stream))


def ceiling(source: Path, folder: Path, on_nan: str = "stop") -> None:
    """The same pipeline with everything that computes taken out: kernel, look for NaN, hash."""
    from finseek.checkpoint import dequantize
    from finseek.checkpoint.stream import transforms, workers

    class NoHash:
        def update(self, piece: object) -> None: ...

        def hexdigest(self) -> str:
            return ""

    workers.new_hash = lambda algorithm: NoHash()  # type: ignore[assignment]
    transforms.nonfinite = lambda raw, dtype: 0  # type: ignore[assignment]
    dequantize.load_kernel = lambda name, device: lambda *arguments: None  # type: ignore[assignment,return-value]
    ours(source, folder, on_nan)


def naive(source: Path, folder: Path) -> None:
    """load_file, repeat_interleave, save_file, shard by shard."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    scales = {}
    files = sorted(source.glob("*.safetensors"))
    for file in files:
        scales |= {name: t for name, t in load_file(file).items() if name.endswith("_scale_inv")}
    for file in files:
        done = {}
        for name, tensor in load_file(file).items():
            if name + "_scale_inv" in scales:
                scale = scales[name + "_scale_inv"].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
                tensor = (tensor.float() * scale[: tensor.shape[0], : tensor.shape[1]]).bfloat16()
            if not name.endswith("_scale_inv"):
                done[name] = tensor
        save_file(done, folder / file.name, metadata={"format": "pt"})
        with (folder / file.name).open("rb") as written:
            os.fsync(written.fileno())


VARIANTS: dict[str, Callable[..., None]] = {
    "ours": ours,
    "ceiling": ceiling,
    "ours, looking first": lambda s, f: ours(s, f, "error"),
    "ceiling, reading twice": lambda s, f: ceiling(s, f, "error"),
    "ours with torch": lambda s, f: ours(s, f, kernel="torch"),
    "naive": naive,
}


def child(variant: str, source: Path, folder: Path) -> None:
    """Run one variant and print seconds and the peak of anonymous memory."""
    import threading

    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, cpu = time.perf_counter(), time.process_time()
    VARIANTS[variant](source, folder)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    stop.set()
    watcher.join()
    print(json.dumps({"seconds": seconds, "cpu": cpu, "anonymous_MiB": peak[0]}))


def measure(variant: str, source: Path, root: Path) -> dict[str, float]:
    """Run a variant in a new process, on a cold cache where that can be had."""
    folder = root / "out"
    shutil.rmtree(folder, ignore_errors=True)
    for file in source.glob("*.safetensors"):
        with file.open("rb") as held:
            os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    os.sync()
    command = [sys.executable, __file__, "--child", variant, "--folder", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    shutil.rmtree(folder)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def kernels(repeats: int) -> dict[str, float]:
    """Time of each kernel over the time of a widening copy u8 to u16, 18432 x 7168, one thread, CPU time."""
    from finseek.checkpoint.fp8 import FORMATS, TARGETS, grid
    from finseek.checkpoint.kernels import load_kernel

    shape, block = (18432, 7168), (BLOCK, BLOCK)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 127, shape, dtype=np.uint8)
    scales = rng.uniform(1e-4, 1e-2, grid(shape, block)).astype(np.float32)
    out = np.zeros(shape, np.uint16)
    runs: dict[str, Callable[[], object]] = {"copy": lambda: np.copyto(out, codes)}
    for name in ("numba", "torch"):
        kernel = load_kernel(name)
        runs[name] = lambda kernel=kernel: kernel(codes, scales, out, block, FORMATS["F8_E4M3"], TARGETS["bf16"])
    import torch

    torch.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, function in runs.items():
            began = time.thread_time()
            function()
            times[name].append(time.thread_time() - began)
    ratios = {name: [a / b for a, b in zip(times[name][1:], times["copy"][1:], strict=True)] for name in runs}
    return {f"{name} / copy": round(statistics.median(ratios[name]), 2) for name in ("numba", "torch")}


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.folder / "source", options.folder / "out")
        return
    root = Path(tempfile.mkdtemp(prefix="finseek-bench-", dir=options.folder))
    try:
        nbytes = int(options.gigabytes * 1e9)
        report: dict[str, object] = {}
        if "pipeline" in options.parts:
            report |= pipeline(root, options.turns, nbytes, options.variants)
        if "memory" in options.parts:
            report |= memory(root, nbytes)
        if "kernels" in options.parts:
            report |= {"kernel time over a widening copy": kernels(7)}
        report |= {"environment": {"cpus": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()}}
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def pipeline(root: Path, turns: int, nbytes: int, variants: list[str]) -> dict[str, object]:
    """Variants, turn by turn."""
    source = root / "source"
    make_source(source, nbytes, shards=8)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for turn in range(turns):
        for name in Random(turn).sample(variants, len(variants)):
            runs[name].append(measure(name, source, root))
            print(f"{name:24} {runs[name][-1]}", file=sys.stderr)
    shutil.rmtree(source)

    def ratio(above: str, below: str) -> dict[str, float]:
        each = [a["seconds"] / b["seconds"] for a, b in zip(runs[above], runs[below], strict=True)]
        return {"median": round(statistics.median(each), 3), "low": round(min(each), 3), "high": round(max(each), 3)}

    read_and_written = 688 + 1342
    ratios = {
        "ours / I/O ceiling": ("ceiling", "ours"),
        "looking first / the ceiling that reads twice": ("ceiling, reading twice", "ours, looking first"),
        "faster than naive": ("naive", "ours"),
        "looking first, faster than naive": ("naive", "ours, looking first"),
    }
    return {
        **{name: ratio(*pair) for name, pair in ratios.items() if runs.keys() >= set(pair)},
        "seconds": {n: round(statistics.median(r["seconds"] for r in held), 2) for n, held in runs.items()},
        "cpu_seconds": {n: round(statistics.median(r["cpu"] for r in held), 2) for n, held in runs.items()},
        "anonymous_MiB": {n: round(max(r["anonymous_MiB"] for r in held)) for n, held in runs.items()},
        "minutes for 671B at a shared GB/s": {g: round(read_and_written / g / 60, 1) for g in (1, 2, 5)},
    }


def memory(root: Path, nbytes: int) -> dict[str, object]:
    """The peak of anonymous memory on 2 and on 16 shards of the same tensors."""
    peaks = {}
    for shards in (2, 16):
        make_source(root / "source", nbytes, shards)
        peaks[f"{shards} shards"] = round(measure("ours", root / "source", root)["anonymous_MiB"])
        shutil.rmtree(root / "source")
    return {"anonymous_MiB by shards": peaks}


if __name__ == "__main__":
    main()
