"""The commands that start a job, and an sbatch script that bash runs; tests/distributed has a real Slurm run one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finseek.cli.main import app
from finseek.core.errors import ConfigError, FinseekError, Stopped
from finseek.pipeline.config_file import validate_part
from finseek.train import ParallelOptions
from finseek.train.launch import SlurmOptions, node_commands, slurm_script, submit

PROGRAM = ["finseek"]


def test_one_machine_trains_and_several_meet_at_the_first() -> None:
    one = ParallelOptions(devices_per_node=8)
    assert node_commands(PROGRAM, ["a b.yaml"], one, "n0:1") == ["finseek train 'a b.yaml'"]
    two = ParallelOptions(num_nodes=2, devices_per_node=8)
    assert node_commands(PROGRAM, ["a.yaml"], two, "n0:1") == [
        f"finseek launch a.yaml --rendezvous n0:1 --node {rank}" for rank in (0, 1)
    ]


def stub(folder: Path, name: str, body: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/bash\n{body}\n")
    program.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands of Slurm as far as the script calls them."""
    programs = tmp_path / "bin"
    programs.mkdir()
    stub(programs, "scontrol", 'case $1 in show) echo n7; echo n8;; requeue) echo "requeued $2";; esac')
    stub(programs, "srun", 'echo "srun $@"; exit ${SRUN_STATUS:-0}')
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[7-8]")
    monkeypatch.setenv("SLURM_JOB_ID", "31")
    return programs


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("status", [0, 3])
def test_the_script_runs_the_step_and_keeps_its_status(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("SRUN_STATUS", str(status))
    options = SlurmOptions(partition="gpu", container="image.sqsh", mounts=("/data:/data",), setup=("echo ready",))
    layout = ParallelOptions(num_nodes=2, devices_per_node=8)
    text = slurm_script("my run", PROGRAM, ["a config.yaml"], layout, options, tmp_path)
    done = run(text)
    assert done.returncode == status, done.stderr
    ready, line = done.stdout.splitlines()
    assert ready == "ready"
    assert line == (
        "srun --kill-on-bad-exit=1 --container-image=image.sqsh --container-mounts=/data:/data"
        " finseek launch a config.yaml --rendezvous n7:29400"
    )
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    assert (asked["nodes"], asked["ntasks-per-node"]) == ("2", "1")
    assert (asked["gpus-per-node"], asked["cpus-per-task"]) == ("8", "64")
    assert asked["signal"] == "B:USR1@300"
    assert "account" not in asked
    assert "#SBATCH --requeue\n" in text


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        (f"exit {Stopped.exit_code}", Stopped.exit_code, ["told", "requeued 31"]),
        ("exit 0", 0, ["told"]),  # it was done before its time was over
        ("exit 1", 1, ["told"]),
    ],
)
def test_a_signal_reaches_the_step_and_a_saved_job_is_requeued(
    cluster: Path, tmp_path: Path, ending: str, status: int, said: list[str]
) -> None:
    wait = "for _ in {1..200}; do sleep 0.05; done"  # should it not be told, it ends
    stub(cluster, "srun", f"trap 'echo told; {ending}' USR1; kill -USR1 $PPID; {wait}")
    text = slurm_script("r", PROGRAM, ["c.yaml"], ParallelOptions(), SlurmOptions(gpus=False), tmp_path)
    assert "gpus-per-node" not in text
    done = run(text)
    assert done.stdout.splitlines() == said
    assert done.returncode == status


def test_a_signal_before_the_step_has_a_name_reaches_it(cluster: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    ending = f"trap 'echo told; exit {Stopped.exit_code}' USR1"
    stub(cluster, "srun", f"{ending}; touch {ready}; for _ in {{1..200}}; do sleep 0.05; done")
    text = slurm_script("r", PROGRAM, ["c.yaml"], ParallelOptions(), SlurmOptions(gpus=False), tmp_path)
    done = run(text.replace("step=$!", f"until [ -e {ready} ]; do sleep 0.01; done; kill -USR1 $$; step=$!"))
    assert done.stdout.splitlines() == ["told", "requeued 31"]
    assert done.returncode == Stopped.exit_code


def test_a_refusal_of_slurm_is_told(cluster: Path, tmp_path: Path) -> None:
    stub(cluster, "sbatch", "echo 'no such partition' >&2; exit 1")
    with pytest.raises(FinseekError, match="no such partition"):
        submit(tmp_path / "job.sh", "#!/bin/bash\n")
    stub(cluster, "sbatch", "echo '77;cluster'")
    assert submit(tmp_path / "job.sh", "#!/bin/bash\n") == "77"


def test_a_time_that_yaml_takes_for_a_number_is_meant_as_written() -> None:
    options = validate_part(
        "slurm", SlurmOptions, ["slurm.time_limit=1:30:05", "slurm.mounts=[/data:/data]", "slurm.container=i"]
    )
    assert (options.time_limit, options.mounts) == ("01:30:05", ("/data:/data",))


def test_a_folder_with_a_space_stays_one_value(tmp_path: Path) -> None:
    folder = tmp_path / "my runs"
    text = slurm_script("run", PROGRAM, ["a.yaml"], ParallelOptions(), SlurmOptions(), folder)
    assert f'#SBATCH --output="{folder}/logs/slurm-%j.log"\n' in text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["slurm.time_limit=00:05:00"], "requeue_seconds 300 leaves nothing of the time limit 00:05:00"),
        (["slurm.mounts=[/a:/b]"], r"set slurm\.container"),
        (["slurm.partition=a b"], "should match pattern"),
    ],
)
def test_what_slurm_cannot_do_is_refused(settings: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        validate_part("slurm", SlurmOptions, settings)
    validate_part("slurm", SlurmOptions, ["slurm.time_limit=1-00:05:00", "slurm.requeue_seconds=600"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "slurm.partition=gpu"], "--set slurm.partition=gpu is asked of Slurm alone: add --slurm"),
        (["--set", "parallel.num_nodes=2", "--rendezvous", "h:1", "--node", "2"], "--node 2 is none of the 2 machines"),
    ],
)
def test_what_a_launch_would_ignore_or_wait_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("run: {name: a}\n")
    with pytest.raises(ConfigError, match=re.escape(says)):
        CliRunner().invoke(app, ["launch", "a.yaml", *arguments], catch_exceptions=False)
