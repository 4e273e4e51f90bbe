"""What this machine can run, and what is missing, with the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

GIB = 1024**3

PARTS: Mapping[str, tuple[str, str, str]] = {
    "torch": ("torch", "train", "training and scoring models"),
    "transformers": ("transformers", "train", "Hugging Face checkpoints"),
    "lightning": ("lightning", "train", "the lightning engine"),
    "peft": ("peft", "train", "LoRA adapters"),
    "scikit-learn": ("sklearn", "stats", "learned baselines"),
    "arch": ("arch", "stats", "the SPA test"),
    "numba": ("numba", "speed", "the fast kernels"),
    "yfinance": ("yfinance", "prices", "prices from Yahoo"),
    "nemo-automodel": ("nemo_automodel", "nemo", "the automodel engine"),
    "trl": ("trl", "trl", "the trl engine"),
    "bitsandbytes": ("bitsandbytes", "trl", "4-bit training"),
    "wandb": ("wandb", "tracking", "Weights & Biases"),
    "tensorboard": ("tensorboard", "tracking", "TensorBoard"),
    "mlflow": ("mlflow", "tracking", "MLflow"),
    "unsloth": ("unsloth", "unsloth", "Unsloth (in an environment of its own, with a GPU)"),
}
"""Distribution: (module, extra, what it is for)."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor: ``state`` is ok, missing or problem; ``fix`` is a command or an advice."""

    name: str
    state: str
    detail: str
    fix: str = ""


def examine(folder: Path, secrets: Mapping[str, bool]) -> Iterator[Check]:
    """Look at the machine; nothing is changed and nothing heavy is imported.

    Args:
        folder: where runs would be written.
        secrets: name of each secret and whether it is set; values are not wanted.
    """
    yield _python()
    yield Check("processor", "ok", f"{os.cpu_count()} cores, {platform.machine()}")
    yield _memory()
    yield _disk(folder)
    yield from _gpus()
    for distribution, (module, extra, purpose) in PARTS.items():
        if util.find_spec(module) is None:
            yield Check(distribution, "missing", f"for {purpose}", f"pip install 'finseek[{extra}]'")
        else:
            yield Check(distribution, "ok", metadata.version(distribution if module != "mlflow" else _mlflow()))
    slurm = shutil.which("sbatch")
    yield (
        Check("slurm", "ok", slurm)
        if slurm
        else Check("slurm", "missing", "for finseek launch --submit", "run on a login node of the cluster")
    )
    for name, present in secrets.items():
        if present:
            yield Check(name, "ok", "is set")
        else:
            yield Check(name, "missing", "not set; only its own service needs it", f"{name}=… in .env")


def _python() -> Check:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", version)
    return Check("python", "problem", f"{version} is not 3.11 to 3.13", "make a virtual environment with Python 3.11")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if total >= 4:
        return Check("memory", "ok", f"{total:.0f} GiB")
    return Check("memory", "problem", f"{total:.1f} GiB; the demo wants 4", "use a larger machine")


def _disk(folder: Path) -> Check:
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free / GIB
    if not os.access(place, os.W_OK):
        return Check("disk", "problem", f"{place} is not writable", "choose another run.output_dir")
    if free < 5:
        return Check("disk", "problem", f"{free:.1f} GiB free at {place}; the demo wants 5", "free some space")
    return Check("disk", "ok", f"{free:.0f} GiB free at {place}")


def _gpus() -> Iterator[Check]:
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Check(
            "gpu", "missing", "no NVIDIA driver; training runs on the processor", "none needed for small models"
        )
        return
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Check("gpu", "problem", f"nvidia-smi does not answer ({error})", "repair the driver")
        return
    for line in filter(None, done.stdout.splitlines()):
        yield Check("gpu", "ok", line)
    yield _nccl()
    if done.returncode or not done.stdout.strip():
        yield Check("gpu", "problem", "nvidia-smi finds no usable GPU", "repair the driver")


def _nccl() -> Check:
    """NCCL as torch's CUDA builds bring it; without it several GPUs cannot talk."""
    found = next((name for name in map("nvidia-nccl-cu{}".format, (13, 12)) if _installed(name)), None)
    if found:
        return Check("nccl", "ok", metadata.version(found))
    return Check("nccl", "missing", "for training on several GPUs", "install torch from the index of your CUDA version")


def _mlflow() -> str:
    return next(name for name in ("mlflow-skinny", "mlflow") if _installed(name))


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
