"""A Slurm of two nodes on this machine, with its own keys, ports and folders; it ends with the test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

HOST = socket.gethostname()
NODES = (HOST, f"{HOST}z")  # processes of a job meet at the first, so its name must be one that resolves
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port0}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={first} NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs=1 RealMemory=1000
NodeName={second} NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs=1 RealMemory=1000
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in taken]


@contextmanager
def cluster(folder: Path) -> Iterator[Mapping[str, str]]:
    """Start it; yields the environment in which Slurm's commands speak to it."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        assert shutil.which(program), f"{program} is missing: apt-get install slurm-wlm munge"
    folder.mkdir(parents=True)
    ports = {f"port{number}": port for number, port in enumerate(free_ports(3))}
    names = {"first": NODES[0], "second": NODES[1], "host": HOST, "folder": folder}
    (folder / "slurm.conf").write_text(CONF.format(**ports, **names))
    (folder / "key").write_bytes(os.urandom(32))
    (folder / "key").chmod(0o600)
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{what}={folder}/{name}" for what, name in (
        ("key-file", "key"), ("socket", "munge.socket"), ("pid-file", "munged.pid"), ("log-file", "munged.log"),
        ("seed-file", "munged.seed"),
    )]  # fmt: skip
    programs = [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"]]
    programs += [["slurmd", "-D", "-N", node] for node in NODES]
    with ExitStack() as stack:
        for number, program in enumerate(programs):
            log = stack.enter_context((folder / f"{number}-{program[0]}.log").open("wb"))
            started = subprocess.Popen(program, stdout=log, stderr=log, env=environment)
            stack.callback(started.wait)
            stack.callback(started.terminate)
            if program[0] == "munged":
                wait_for(lambda: (folder / "munge.socket").exists(), 20)
        wait_for(lambda: set(ask(environment, "sinfo", "--noheader", "--format=%T").split()) == {"idle"}, 60)
        yield environment


def ask(environment: Mapping[str, str], *command: str) -> str:
    """What a command of Slurm prints; empty while it cannot answer."""
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    return done.stdout.strip()


def wait_for(condition: object, seconds: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
