"""How a training job is started: in this process, under torchrun, or by Slurm."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from finseek.core.artifacts import write_text
from finseek.core.errors import FinseekError, MissingPart
from finseek.core.options import Options
from finseek.train.options import ParallelOptions


class SlurmOptions(Options):
    """What Slurm is asked for besides nodes and devices."""

    partition: str | None = Field(None, description="Partition; null: the cluster's default.")
    account: str | None = Field(None, description="Account that pays.")
    time_limit: str = Field("24:00:00", pattern=r"^(\d+-)?\d{1,2}:\d{2}:\d{2}$", description="Wall time, D-HH:MM:SS.")
    gpus: bool = Field(True, description="Ask for a GPU for each device; false runs on CPUs.")
    cpus_per_device: int = Field(8, ge=1, description="CPU cores of each device.")
    container: str | None = Field(None, description="Container image (pyxis) that the job runs in.")
    mounts: tuple[str, ...] = Field((), description="Folders mounted into the container, source:target.")
    setup: tuple[str, ...] = Field((), description="Shell lines before the start, such as module load or activate.")
    requeue_seconds: int = Field(120, ge=10, description="Seconds before the end of the time limit to requeue.")
    port: int = Field(29400, ge=1024, le=65535, description="Port of the rendezvous on the first node.")


def training_command(arguments: Sequence[str], parallel: ParallelOptions, rendezvous: str | None = None) -> list[str]:
    """The command of one node: the program itself, or torchrun around it where there is more than one process.

    Args:
        arguments: of ``finseek``, such as ``["train", "run.yaml"]``.
        parallel: nodes and devices.
        rendezvous: HOST:PORT of the first node, for several nodes.
    """
    if parallel.world_size == 1:
        return ["finseek", *arguments]
    meeting = ["--standalone"] if parallel.num_nodes == 1 else ["--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous}"]
    shape = [f"--nnodes={parallel.num_nodes}", f"--nproc-per-node={parallel.devices_per_node}"]
    return ["torchrun", *shape, *meeting, "--max-restarts=0", "-m", "finseek.cli.main", *arguments]


def slurm_script(
    name: str, arguments: Sequence[str], parallel: ParallelOptions, options: SlurmOptions, logs: Path
) -> str:
    """An sbatch script: one torchrun a node, one rendezvous, requeued before its time is over or when preempted.

    A requeued job goes on from its last state. A process that fails ends all others (``--kill-on-bad-exit``).

    Args:
        name: of the job.
        arguments: of ``finseek``.
        parallel: nodes and devices.
        options: what else is asked for.
        logs: folder of the job's output.
    """
    asked = {
        "job-name": name,
        "nodes": parallel.num_nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": options.cpus_per_device * parallel.devices_per_node,
        "gpus-per-node": parallel.devices_per_node if options.gpus else None,
        "partition": options.partition,
        "account": options.account,
        "time": options.time_limit,
        "output": logs / "slurm-%j.log",
        "open-mode": "append",
        "signal": f"B:USR1@{options.requeue_seconds}",
    }
    header = [f"#SBATCH --{key}={value}" for key, value in asked.items() if value is not None]
    command = training_command(arguments, parallel, f"RENDEZVOUS:{options.port}")
    line = shlex.join(command).replace("RENDEZVOUS", "$head")
    container = [f"--container-image={options.container}"] if options.container else []
    container += [f"--container-mounts={','.join(options.mounts)}"] if options.container and options.mounts else []
    srun = shlex.join(["srun", "--kill-on-bad-exit=1", *container])
    return "\n".join(
        [
            "#!/bin/bash",
            *header,
            "#SBATCH --requeue",
            "set -euo pipefail",
            *options.setup,
            'read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
            # bash runs a trap only between commands, so the step runs in the background and is waited for.
            "trap 'scontrol requeue \"$SLURM_JOB_ID\"' USR1",
            f"{srun} {line} &",
            "step=$!",
            # 138 is 128 + USR1: the wait was interrupted, the step goes on.
            'until wait "$step"; status=$?; [ "$status" -ne 138 ]; do :; done',
            'exit "$status"',
            "",
        ]
    )


def submit(script: Path, text: str) -> str:
    """Write a script and hand it to sbatch; returns the job's number.

    Raises:
        MissingPart: where there is no sbatch.
        FinseekError: if Slurm refuses the job.
    """
    write_text(script, text)
    try:
        done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise MissingPart("sbatch (Slurm)", "train", "finseek launch --submit") from missing
    if done.returncode:
        raise FinseekError(f"sbatch refused {script}: {done.stderr.strip()}")
    return done.stdout.strip().split(";")[0]
