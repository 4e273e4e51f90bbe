"""The commands that start a job, and an sbatch script that bash runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from finseek.core.errors import FinseekError
from finseek.train import ParallelOptions
from finseek.train.launch import SlurmOptions, slurm_script, submit, training_command


def test_one_process_needs_no_torchrun():
    assert training_command(["train", "run.yaml"], ParallelOptions()) == ["finseek", "train", "run.yaml"]


def test_one_node_meets_alone_and_several_at_the_first():
    one = training_command(["train", "a.yaml"], ParallelOptions(devices_per_node=8))
    assert one[:4] == ["torchrun", "--nnodes=1", "--nproc-per-node=8", "--standalone"]
    many = training_command(["train", "a.yaml"], ParallelOptions(num_nodes=4, devices_per_node=8), "n0:1")
    assert "--rdzv-endpoint=n0:1" in many
    assert many[-3:] == ["finseek.cli.main", "train", "a.yaml"]


def stub(folder: Path, name: str, body: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/bash\n{body}\n")
    program.chmod(0o755)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The commands of Slurm as far as the script calls them; a real one-node Slurm runs in the soak tests."""
    programs = tmp_path / "bin"
    programs.mkdir()
    stub(programs, "scontrol", 'case $1 in show) echo n7; echo n8;; requeue) echo "requeued $2";; esac')
    stub(programs, "srun", 'echo "srun $@"; exit ${SRUN_STATUS:-0}')
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[7-8]")
    monkeypatch.setenv("SLURM_JOB_ID", "31")
    return programs


@pytest.mark.parametrize("status", [0, 3])
def test_the_script_runs_the_step_and_keeps_its_status(cluster, tmp_path, monkeypatch, status):
    monkeypatch.setenv("SRUN_STATUS", str(status))
    options = SlurmOptions(partition="gpu", container="image.sqsh", mounts=("/data:/data",), setup=("echo ready",))
    text = slurm_script(
        "my run", ["train", "a config.yaml"], ParallelOptions(num_nodes=2, devices_per_node=8), options, tmp_path
    )
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    ready, line = done.stdout.splitlines()
    assert ready == "ready"
    assert line == (
        "srun --kill-on-bad-exit=1 --container-image=image.sqsh --container-mounts=/data:/data torchrun --nnodes=2"
        " --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=n7:29400 --max-restarts=0"
        " -m finseek.cli.main train a config.yaml"
    )
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    assert (asked["nodes"], asked["gpus-per-node"], asked["cpus-per-task"]) == ("2", "8", "64")
    assert asked["signal"] == "B:USR1@120"
    assert "account" not in asked
    assert "#SBATCH --requeue\n" in text


def test_a_preemption_signal_requeues(cluster, tmp_path):
    stub(cluster, "srun", "kill -USR1 $PPID; sleep 0.2; echo step over")
    text = slurm_script("r", ["train", "c.yaml"], ParallelOptions(), SlurmOptions(gpus=False), tmp_path)
    assert "gpus-per-node" not in text
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["requeued 31", "step over"]
    assert done.returncode == 0


def test_a_refusal_of_slurm_is_told(cluster, tmp_path):
    stub(cluster, "sbatch", "echo 'no such partition' >&2; exit 1")
    with pytest.raises(FinseekError, match="no such partition"):
        submit(tmp_path / "job.sh", "#!/bin/bash\n")
    stub(cluster, "sbatch", "echo '77;cluster'")
    assert submit(tmp_path / "job.sh", "#!/bin/bash\n") == "77"
