"""The command under torchrun: processes share the shards, and the folder is that of one process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
DEQUANTIZE = ["finseek.cli.main", "checkpoint", "dequantize", "--shard-size", "200KB"]


def run(launch: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [*launch, "-m", *DEQUANTIZE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_two_processes_make_what_one_makes(quantized: Path, tmp_path: Path) -> None:
    alone, both = run([sys.executable], quantized, tmp_path / "one"), run(TORCHRUN, quantized, tmp_path / "two")
    assert alone.returncode == 0, alone.stderr
    assert both.returncode == 0, both.stderr
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert alone.stdout.replace("/one:", "/two:") == both.stdout  # said once, not by each
    again = run(TORCHRUN, quantized, tmp_path / "two", "--resume")
    assert again.returncode == 0, again.stderr
    assert "of them were there" in again.stdout


def test_a_bad_source_stops_all_of_them(copy: Path, tmp_path: Path) -> None:
    shard = next(copy.glob("*.safetensors"))
    os.truncate(shard, shard.stat().st_size - 3)
    failed = run(TORCHRUN, copy, tmp_path / "out")
    assert failed.returncode != 0
    assert f"finseek: {shard}: truncated" in failed.stderr
    assert not (tmp_path / "out").exists()
