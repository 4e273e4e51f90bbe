"""How a training job is started on machines: the command of each, and the script that has Slurm start them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from finseek.core.artifacts import write_text
from finseek.core.errors import FinseekError, MissingPart, Stopped
from finseek.core.options import Options
from finseek.train.options import ParallelOptions
from finseek.train.processes import OVER

STOPPED = "stopped"


class SlurmOptions(Options):
    """What Slurm is asked for besides nodes and devices."""

    partition: str | None = Field(None, pattern=r"^[^\s\"]+$", description="Partition; null: the cluster's default.")
    account: str | None = Field(None, pattern=r"^[^\s\"]+$", description="Account that pays.")
    time_limit: str = Field("24:00:00", pattern=r"^(\d+-)?\d{1,3}:\d{2}:\d{2}$", description="Wall time, D-HH:MM:SS.")
    gpus: bool = Field(True, description="Ask for a GPU for each device; false runs on CPUs.")
    cpus_per_device: int = Field(8, ge=1, description="CPU cores of each device.")
    container: str | None = Field(None, description="Container image (pyxis) that the job runs in.")
    mounts: tuple[str, ...] = Field((), description="Folders mounted into the container, source:target.")
    setup: tuple[str, ...] = Field((), description="Shell lines before the start, such as module load or activate.")
    requeue_seconds: int = Field(300, ge=10, description="Seconds before the time limit in which to save and requeue.")
    port: int = Field(29400, ge=1024, le=65535, description="Port of the rendezvous on the first node.")

    @field_validator("time_limit", mode="before")
    @classmethod
    def _written_in_yaml(cls, value: object) -> object:
        """YAML reads 1:30:00 as a number to the base 60, hence as seconds."""
        if not isinstance(value, int):
            return value
        return f"{value // 3600:02}:{value // 60 % 60:02}:{value % 60:02}"

    @model_validator(mode="after")
    def _what_fits(self) -> Self:
        if self.mounts and not self.container:
            raise ValueError("mounts are mounted into a container, and none is named: set slurm.container")
        days, _, clock = self.time_limit.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        limit = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
        if self.requeue_seconds >= limit:
            raise ValueError(
                f"requeue_seconds {self.requeue_seconds} leaves nothing of the time limit {self.time_limit}: the job"
                " would be stopped and requeued for ever; lower it, or raise slurm.time_limit"
            )
        return self


def node_commands(program: Sequence[str], arguments: Sequence[str], parallel: ParallelOptions, head: str) -> list[str]:
    """The command of each machine as a line of shell, the first machine's first.

    Args:
        program: finseek itself.
        arguments: of ``finseek train``.
        parallel: layout.
        head: HOST:PORT of the first machine, for several.
    """
    if parallel.num_nodes == 1:
        return [shlex.join([*program, "train", *arguments])]
    common = [*program, "launch", *arguments, "--rendezvous", head, "--node"]
    return [shlex.join([*common, str(rank)]) for rank in range(parallel.num_nodes)]


def slurm_script(
    name: str,
    program: Sequence[str],
    arguments: Sequence[str],
    parallel: ParallelOptions,
    options: SlurmOptions,
    run: Path,
) -> str:
    """An sbatch script: one task a node, which starts the processes of its devices; all meet at the first node.

    Before its time is over the job is sent SIGUSR1; it saves, ends with the code of :class:`Stopped`, and is requeued.
    Slurm requeues it itself after a preemption or the failure of a node. It goes on from its last state. A task that
    fails ends all others (``--kill-on-bad-exit``).

    Args:
        name: of the job.
        program: finseek itself, on the nodes or in the container.
        arguments: of ``finseek train``.
        parallel: nodes and devices.
        options: what else is asked for.
        run: folder of the run, in which logs/ gets the job's output.
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
        "output": run / "logs" / "slurm-%j.log",
        "open-mode": "append",
        "signal": f"B:USR1@{options.requeue_seconds}",
    }
    header = [f"#SBATCH --{key}={_quoted(str(value))}" for key, value in asked.items() if value is not None]
    if parallel.num_nodes == 1:
        line = shlex.join([*program, "train", *arguments])
    else:
        line = shlex.join([*program, "launch", *arguments, "--rendezvous"]) + f' "$head:{options.port}"'
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
            "trap 'told=yes; kill -USR1 \"${step:-}\" 2>/dev/null || :' USR1 TERM",
            f"{srun} {line} &",
            "step=$!",
            '[ -z "${told:-}" ] || kill -USR1 "$step"  # told before the step had a name',
            # A wait that a signal interrupts says nothing of the step, which goes on.
            'while kill -0 "$step" 2>/dev/null; do wait "$step" || :; done',
            'wait "$step" && status=0 || status=$?',
            # Of several tasks srun tells the worst status, so the first one's word counts.
            f"over={shlex.quote(str(run / 'train' / OVER))}-$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}",
            f'if [ "$status" -eq {Stopped.exit_code} ] || grep -qsx {STOPPED} "$over"; then',
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$status"',
            "",
        ]
    )


def _quoted(value: str) -> str:
    """A value as sbatch reads it from a script: at white space it would end."""
    return f'"{value}"' if any(map(str.isspace, value)) else value


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
