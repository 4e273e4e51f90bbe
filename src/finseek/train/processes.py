"""The processes of one job: started under torchrun, watched, stopped together, the first error told.

The engine's process holds a pipe that all of them read. When it closes, by an order or because that process was killed,
each saves what it can (`stop` lies in the folder) or ends at once, so that none is left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import finseek.core.errors as errors
from finseek.core.artifacts import read_json, write_json, write_text
from finseek.core.errors import FinseekError, Stopped
from finseek.train.job import Node, TrainJob, TrainResult
from finseek.train.options import ParallelOptions
from finseek.train.preemption import Preemption

FOLDER, JOB, RESULT, STOP, OUTPUT_LOG, OVER = "workers", "job.json", "result.json", "stop", "output.log", "over"
POLL_SECONDS = 0.1
QUIET = {"TORCHDYNAMO_DISABLE": "1", "TORCH_CPP_LOG_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}


def torchrun(parallel: ParallelOptions, node: Node) -> list[str]:
    """The command that starts the processes of one machine, to which the program is appended."""
    if parallel.num_nodes == 1:
        meeting = ["--standalone"]
    else:
        where = [f"--rdzv-endpoint={node.rendezvous}", f"--rdzv-id={node.meeting}"]
        meeting = ["--rdzv-backend=c10d", *where, f"--rdzv-conf=is_host={int(node.rank == 0)},read_timeout=600"]
    shape = [f"--nnodes={parallel.num_nodes}", f"--nproc-per-node={parallel.devices_per_node}"]
    return [sys.executable, "-m", "torch.distributed.run", *shape, *meeting, "--max-restarts=0"]


def run_processes(target: str, job: TrainJob, follow: Callable[[], None] = lambda: None) -> TrainResult:
    """Run ``target`` in every process of the job's layout, and return what its first process returns.

    Args:
        target: ``module:function``; called with the job, returns a result in rank 0. It finds its place by the
            variables that torchrun sets, and is sent SIGUSR1 when it should save and end.
        job: from which layout and folder are taken.
        follow: called several times a second, to report progress.

    Raises:
        FinseekError: the first error of any process, as it was raised; the others are ended.
    """
    folder = job.output / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(folder / JOB, {"target": target, "job": job.to_json()})
    _processes(folder, job.parallel, job.node, job.options.threads, follow)
    result = TrainResult.from_json(read_json(folder / RESULT))
    shutil.rmtree(folder)
    return result


def join(output: Path, parallel: ParallelOptions, node: Node, threads: int, since: float = 0.0) -> None:
    """The part of a further machine in a job of several: wait for the first one's job, compute, end.

    Args:
        output: folder of the job.
        parallel: its layout.
        node: this machine.
        threads: of each process.
        since: a job that was over before then was another; seconds since 1970.

    Raises:
        FinseekError: the first error of any process.
    """
    folder = output / FOLDER
    while not _begun(folder, node.meeting):
        over = output / f"{OVER}-{node.meeting}"
        if over.exists() and over.stat().st_mtime >= since:
            return
        time.sleep(POLL_SECONDS)
    with suppress(Stopped):  # the first machine says so, and must not be ended by this one's leaving
        _processes(folder, parallel, node, threads, lambda: None)


def mark_over(output: Path, node: Node, how: str) -> None:
    """Tell the other machines, and the script that started all, how this start of the job has ended."""
    if output.is_dir():
        write_text(output / f"{OVER}-{node.meeting}", how)


def _begun(folder: Path, meeting: str) -> bool:
    try:
        return bool(json.loads((folder / JOB).read_bytes())["job"]["node"]["meeting"] == meeting)
    except FileNotFoundError:
        return False


def _processes(folder: Path, parallel: ParallelOptions, node: Node, threads: int, follow: Callable[[], None]) -> None:
    command = [*torchrun(parallel, node), "-m", "finseek.train.worker", str(folder.resolve())]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": str(threads)}
    log = folder / f"{node.rank}-{OUTPUT_LOG}"
    with log.open("wb") as output, Preemption() as preemption:
        agent = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | QUIET | paths,
            start_new_session=True,
        )
        assert agent.stdin is not None
        try:
            while agent.poll() is None:
                follow()
                if preemption.asked and not agent.stdin.closed:
                    write_text(folder / STOP, preemption.asked)
                    agent.stdin.close()
                elif any(folder.glob("error-*.json")):  # those that wait for the failed one need not wait long
                    agent.stdin.close()
                time.sleep(POLL_SECONDS)
            follow()
        finally:
            agent.stdin.close()
            agent.wait()
    if agent.returncode:
        raise first_error(folder, log)


def first_error(folder: Path, log: Path) -> FinseekError:
    """What the process that failed first raised."""
    told = sorted((read_json(path) for path in folder.glob("error-*.json")), key=lambda each: each["time"])
    if not told:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        return FinseekError(f"a process of the job was ended from outside ({' '.join(last)}): look into {log}")
    first = told[0]
    kind = getattr(errors, first["kind"], None)
    if kind is not None and kind is not errors.MissingPart:
        error: FinseekError = kind(first["message"])
        return error
    return FinseekError(f"rank {first['rank']} failed: {first['kind']}: {first['message']}; its traceback is in {log}")


def watch(folder: Path, stop: Callable[[], None]) -> None:
    """Call ``stop`` when the engine's process wants this one to save and end; end at once when it is gone.

    It is called again every second, since whoever heeds it may not have been there the first time.
    """

    def wait() -> None:
        os.read(0, 1)  # the pipe of the engine's process: empty, then closed
        while (folder / STOP).exists():
            stop()
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def describe_error(error: BaseException, rank: int) -> dict[str, Any]:
    """A process's error as plain values."""
    message = " ".join(str(error).split())[:2000]
    return {"time": time.time(), "rank": rank, "kind": type(error).__name__, "message": message}
