"""A real Slurm of two nodes runs a job that `finseek launch` wrote; it is preempted once, goes on, and finishes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_cluster as slurm
import yaml

from finseek.market import generate_prices, write_prices
from finseek.theses.synthetic import generate_theses, write_theses_xml

ROOT = Path(__file__).resolve().parents[2]
STEPS = 150


def config(folder: Path) -> Path:
    """A study of five tickers whose training takes long enough to be interrupted."""
    prices, planted = generate_prices(0, n_tickers=5, n_sessions=190)
    write_prices(prices, folder / "prices.parquet")
    written = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=0)
    write_theses_xml(written.theses, folder / "theses")
    tiny = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32, "moe_intermediate_size": 16}
    sections = {
        "run": {"name": "study", "output_dir": str(folder / "runs")},
        "theses": {"source": str(folder / "theses")},
        "prices": {"source": str(folder / "prices.parquet")},
        "split": {"train_end": "2022-06-30", "test_start": "2022-07-01", "validation_days": 40},
        "prompt": {"instruction": "Act.", "answer_order": ["action"], "vocab_size": 400,
                   "snapshot": {"features": ["ret1"]}},
        "model": {"preset": "tiny", "overrides": tiny | {"n_routed_experts": 4, "num_attention_heads": 2}},
        "parallel": {"num_nodes": 2, "devices_per_node": 1},
        "train": {"engine": "lightning", "max_steps": STEPS, "global_batch_size": 8, "micro_batch_size": 4,
                  "seq_length": 64, "val_check_interval": STEPS, "checkpoint_every": STEPS, "log_every_n_steps": 1,
                  "threads": 1, "check": False},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def steps(log: Path) -> list[int]:
    if not log.is_file():
        return []
    return [json.loads(line)["step"] for line in log.read_bytes().split(b"\n")[:-1]]


@pytest.mark.system
def test_a_job_of_two_tasks_is_preempted_once_and_finishes(tmp_path: Path) -> None:
    study = config(tmp_path)
    run, log = tmp_path / "runs" / "study", tmp_path / "runs" / "study" / "train" / "train_log.jsonl"
    with slurm.cluster(tmp_path / "slurm") as environment:
        environment = {**environment, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        port = slurm.free_ports(1)[0]
        asked = ("gpus=false", "cpus_per_device=1", "partition=low", f"port={port}", "time_limit=1:00:00")
        settings = [part for each in asked for part in ("--set", f"slurm.{each}")]
        command = [sys.executable, "-m", "finseek.cli.main", "launch", str(study), "--slurm", "--submit", *settings]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        job = done.stdout.strip()
        output = run / "logs" / f"slurm-{job}.log"

        def state(key: str) -> str:
            found = re.search(rf"\b{key}=(\S+)", slurm.ask(environment, "scontrol", "show", "job", job))
            return found.group(1) if found else ""

        def trained(some: int) -> bool:
            assert state("JobState") in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", ""), output.read_text()
            return len(steps(log)) >= some

        slurm.wait_for(lambda: trained(5), 240)
        assert state("NumNodes") == "2"
        first = subprocess.run(
            ["srun", "--partition=high", "--nodes=2", "--immediate=200", "true"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert first.returncode == 0, first.stderr
        interrupted = len(steps(log))
        assert 5 <= interrupted < STEPS
        slurm.wait_for(lambda: state("JobState") in ("COMPLETED", "FAILED", "CANCELLED"), 300)
        assert state("JobState") == "COMPLETED", output.read_text()
        assert state("Restarts") == "1"
        told = output.read_text()
    # Whichever node is signalled first stops both, so the first one may not have been signalled itself.
    assert re.search(r"training stopped by (SIG\w+|a signal elsewhere) after step \d+", told), told
    assert steps(log) == list(range(1, STEPS + 1))
    assert (run / "train" / "checkpoint" / "config.json").is_file()
    assert os.listdir(run / "train" / "checkpoint")
