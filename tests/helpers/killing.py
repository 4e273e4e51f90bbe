"""Run a job, kill it at some step, run it again: what the log and the weights must not show."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

from finseek.train import TrainJob
from finseek.train.state import TIME_FIELDS

PROGRAM = (
    "import json, sys; from finseek.train import TrainJob, load_engine;"
    "load_engine('lightning').run(TrainJob.from_json(json.load(open(sys.argv[1]))))"
)


def lines(job: TrainJob) -> list[dict]:
    """The log without what time decides."""
    read = [json.loads(line) for line in (job.output / "train_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIME_FIELDS} for line in read]


def weights(job: TrainJob) -> bytes:
    return (job.output / "checkpoint" / "model.safetensors").read_bytes()


def start(job: TrainJob) -> subprocess.Popen[bytes]:
    """The job in a process group of its own."""
    job.output.mkdir(parents=True, exist_ok=True)
    file = job.output.parent / "job.json"
    file.write_text(json.dumps(job.to_json()))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(file)], env=environment, stderr=subprocess.PIPE)


def finish(job: TrainJob) -> None:
    process = start(job)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]


def kill_at(job: TrainJob, step: int) -> int:
    """SIGKILL the job once its log shows ``step``; returns the lines that it had then."""
    log = job.output / "train_log.jsonl"
    before = log.stat().st_mtime_ns if log.exists() else 0
    process = start(job)
    wait_for(job, process, step, before)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    _wait_for_orphans(job)
    assert not (job.output / "checkpoint").exists()
    return log.read_bytes().count(b"\n")


def wait_for(job: TrainJob, process: subprocess.Popen[bytes], step: int, before: int = 0) -> None:
    """Until the job's log, written after ``before``, shows ``step``."""
    log = job.output / "train_log.jsonl"
    while process.poll() is None:
        if log.exists() and log.stat().st_mtime_ns > before and log.read_bytes().count(b"\n") >= step:
            break
        time.sleep(0.002)


def _wait_for_orphans(job: TrainJob) -> None:
    """Processes of a killed job end by themselves."""
    for _ in range(600):
        listed = subprocess.run(["pgrep", "-f", str(job.output / "workers")], capture_output=True).stdout
        if not listed.strip():
            return
        time.sleep(0.1)
    raise AssertionError("processes of a killed job are left")


def beside(job: TrainJob, name: str) -> TrainJob:
    """The same job with another output."""
    return replace(job, output=job.output.parent.parent / name / "train")
