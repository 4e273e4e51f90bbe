"""Processes under torchrun: together they work, fail, are stopped, and none outlives the engine's process."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from finseek.core.errors import ConfigError, FinseekError
from finseek.train import ModelInit, ParallelOptions, TrainJob, TrainOptions
from finseek.train.processes import run_processes


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainJob:
    """A job of two processes that find `process_targets`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (tmp_path / "out").mkdir()
    init, options = ModelInit(preset="tiny", overrides={"hidden_size": 8}), TrainOptions(threads=1, betas=(0.8, 0.9))
    place = {name: tmp_path / name for name in ("training", "validation", "tokenizer")}
    layout = ParallelOptions(devices_per_node=2)
    return TrainJob(**place, init=init, output=tmp_path / "out", options=options, parallel=layout, seed=3)


def test_a_job_survives_its_file(job: TrainJob) -> None:
    assert TrainJob.from_json(job.to_json()) == job


def test_processes_work_together_and_leave_nothing(job: TrainJob) -> None:
    followed = []
    result = run_processes("process_targets:count", job, lambda: followed.append(1))
    assert result.steps == 2
    assert sorted(path.name for path in job.output.iterdir()) == ["met-0", "met-1"]
    assert followed


@pytest.mark.parametrize(
    ("target", "kind", "says"),
    [
        ("fail_in_rank_1", ConfigError, r"^train.seq_length 7 is bad: make it 8$"),
        ("crash_in_rank_0", FinseekError, r"^rank 0 failed: RuntimeError: out of memory; its traceback is in .*log$"),
        ("killed", FinseekError, r"ended from outside .*output.log$"),
    ],
)
def test_a_failing_rank_ends_all_and_its_error_is_told(
    job: TrainJob, target: str, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        run_processes(f"process_targets:{target}", job)
    assert type(caught.value) is kind


def working(job: TrainJob) -> list[int]:
    """Wait for both processes; their ids."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [int(path.name.split("-")[2]) for path in job.output.glob("working-*")]
        if len(found) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError("the processes did not start")


def test_a_signal_reaches_all_processes(job: TrainJob) -> None:
    def ask() -> None:
        working(job)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    with pytest.raises(FinseekError, match="stopped by SIGUSR1 after step 3 of 9"):
        run_processes("process_targets:until_asked", job)
    thread.join()
    assert len(list(job.output.glob("saved-*"))) == 2


def test_no_process_outlives_a_killed_engine(job: TrainJob, tmp_path: Path) -> None:
    (tmp_path / "job.pickle").write_bytes(pickle.dumps(job))
    program = (
        "import pickle, sys; from finseek.train.processes import run_processes;"
        "run_processes('process_targets:until_asked', pickle.load(open(sys.argv[1], 'rb')))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    engine = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "job.pickle")], env=environment)
    pids = working(job)
    engine.kill()
    engine.wait()
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list(job.output.glob("saved-*"))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
