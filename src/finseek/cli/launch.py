"""``finseek launch``: start a training job on machines, by Slurm or by hand."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from finseek.cli.shared import ConfigArgument, SetOption

PROGRAM = (sys.executable, "-m", "finseek.cli.main")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("launch", short_help="Train on a cluster: write or submit its Slurm job.")(launch)


def launch(
    context: typer.Context,
    config: ConfigArgument,
    slurm: Annotated[bool, typer.Option("--slurm", help="Write a script for sbatch, with --submit submit it.")] = False,
    submit: Annotated[bool, typer.Option("--submit", help="Hand the script to sbatch and print the job.")] = False,
    script: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--script", help="Where the script goes; default: RUN/launch.sbatch."),
    ] = None,
    rendezvous: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--rendezvous", metavar="HOST:PORT", help="Compute here, one of several machines that meet there."
        ),
    ] = None,
    node: Annotated[
        int, typer.Option("--node", envvar="SLURM_NODEID", min=0, help="Number of this machine, 0 for the first.")
    ] = 0,
    assignments: SetOption = None,
) -> None:
    """Start the training of a config on the machines that its section `parallel` names.

    Without options it prints the command of each machine; `finseek train` is all that one machine needs, also for
    several devices. What Slurm is asked for is set with --set slurm.KEY=VALUE: partition, account, time_limit, gpus,
    cpus_per_device, container, mounts, setup, requeue_seconds, port.

    Example: finseek launch config.yaml --slurm --submit --set parallel.num_nodes=2 --set slurm.partition=gpu
    """
    from finseek.cli.shared import load
    from finseek.core.errors import ConfigError
    from finseek.pipeline.config_file import validate_part
    from finseek.train.launch import SlurmOptions, node_commands, slurm_script
    from finseek.train.launch import submit as hand_over

    asked = [text for text in assignments or () if text.startswith("slurm.")]
    kept = [text for text in assignments or () if text not in asked]
    elsewhere = [text for text in asked if not slurm and not text.startswith("slurm.port=")]
    if elsewhere:
        raise ConfigError(f"--set {elsewhere[0]} is asked of Slurm alone: add --slurm, or leave it out")
    if rendezvous is not None:
        _compute_here(context, config, kept, rendezvous, node)
        return
    if submit and not slurm:
        raise ConfigError("--submit without --slurm: give both")
    loaded = load(config, kept)
    options, parallel, run = validate_part("slurm", SlurmOptions, asked), loaded.config.parallel, loaded.config.run
    arguments = [str(config.resolve()), *(part for text in kept for part in ("--set", text))]
    if not slurm:
        for line in node_commands(PROGRAM, arguments, parallel, f"FIRST_MACHINE:{options.port}"):
            print(line)
        return
    folder = (run.output_dir / run.name).resolve()
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    program = ["finseek"] if options.container else PROGRAM
    text = slurm_script(run.name, program, arguments, parallel, options, folder)
    place = script or folder / "launch.sbatch"
    if submit:
        print(hand_over(place, text))
        return
    from finseek.core.artifacts import write_text

    write_text(place, text)
    print(place)


def _compute_here(context: typer.Context, config: Path, assignments: list[str], rendezvous: str, rank: int) -> None:
    """The first machine runs the stages up to training; the others wait for its job and compute with it."""
    from finseek.cli.shared import execute, load
    from finseek.core.errors import ConfigError, Stopped
    from finseek.train.job import Node
    from finseek.train.launch import STOPPED
    from finseek.train.processes import join, mark_over

    job, start = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "0")
    node = Node(rank, rendezvous, f"{job}-{start}" if job else "by-hand")
    options = load(config, assignments).config
    if rank >= options.parallel.num_nodes:
        raise ConfigError(
            f"--node {rank} is none of the {options.parallel.num_nodes} machines of parallel.num_nodes, which"
            " count from 0: correct one of them"
        )
    output = options.run.output_dir / options.run.name / "train"
    if rank:
        join(output, options.parallel, node, options.train.threads, 0.0 if job else time.time())
        return
    how = "failed"
    try:
        execute(context, config, "train", assignments, node)
        how = "done"
    except Stopped:
        how = STOPPED
        raise
    finally:
        mark_over(output, node, how)
