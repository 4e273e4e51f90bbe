"""SIGKILL at random moments and a full disk: resuming gives the files of an undisturbed run, and no others."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finseek.checkpoint import DequantizeOptions, StreamOptions, dequantize_checkpoint
from finseek.core.errors import InputError

# Many small shards: most of the time goes into what a crash can tear apart.
SHARD_BYTES = 20_000
CHILD = """
import sys
from finseek.checkpoint import DequantizeOptions, StreamOptions, dequantize_checkpoint
from finseek.checkpoint.kernels import load_kernel
load_kernel()
print("ready", flush=True)
stream = StreamOptions(shard_bytes=int(sys.argv[3]), workers=2, resume=True)
dequantize_checkpoint(sys.argv[1], sys.argv[2], DequantizeOptions(stream=stream))
print("done", flush=True)
"""


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def start(source: Path, folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD, str(source), str(folder), str(SHARD_BYTES)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def kill_and_resume(source: Path, folder: Path, expected: dict[str, str], moment: float) -> bool:
    """Kill a conversion `moment` seconds after its start, resume it; whether the kill came in the middle."""
    child = start(source, folder)
    time.sleep(moment)
    child.kill()
    child.communicate()
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    resume = DequantizeOptions(stream=StreamOptions(shard_bytes=SHARD_BYTES, resume=True))
    done = dequantize_checkpoint(source, folder, resume)
    assert digests(folder) == expected
    finished = sum(name.endswith(".safetensors") for name in left)
    assert done.resumed <= finished
    return done.resumed >= 1 and left != set(expected)


def undisturbed(source: Path, folder: Path) -> tuple[dict[str, str], float]:
    """The files of a run in peace, and its seconds."""
    began = time.perf_counter()
    dequantize_checkpoint(source, folder, DequantizeOptions(stream=StreamOptions(shard_bytes=SHARD_BYTES, workers=2)))
    return digests(folder), time.perf_counter() - began


def run_kills(source: Path, tmp_path: Path, n: int) -> int:
    expected, seconds = undisturbed(source, tmp_path / "peace")
    rng = random.Random(n)
    moments = [(k + rng.random()) / n * seconds for k in range(n)]  # one in each n-th of the run
    return sum(kill_and_resume(source, tmp_path / f"kill{k}", expected, moment) for k, moment in enumerate(moments))


def test_three_kills(quantized: Path, tmp_path: Path) -> None:
    run_kills(quantized, tmp_path, 3)


@pytest.mark.soak
def test_forty_kills(quantized: Path, tmp_path: Path) -> None:
    assert run_kills(quantized, tmp_path, 40) >= 10


def test_every_place_where_a_crash_can_leave_it(quantized: Path, tmp_path: Path) -> None:
    """The states between two lines of code: a torn journal, a shard without a line, all but the journal's end."""
    expected, _ = undisturbed(quantized, tmp_path / "peace")
    resume = DequantizeOptions(stream=StreamOptions(shard_bytes=SHARD_BYTES, resume=True))
    states = []

    class Killed(BaseException):
        pass

    def killer(after: int) -> object:
        calls = [0]

        def progress(label: str, done: float, total: float | None, unit: str) -> None:
            calls[0] += label == "dequantize"
            if calls[0] > after:
                raise Killed

        return progress

    for after in (0, 5, 40):
        folder = tmp_path / f"after{after}"
        with pytest.raises(Killed):
            dequantize_checkpoint(quantized, folder, DequantizeOptions(stream=resume.stream), killer(after))  # type: ignore[arg-type]
        journal = folder / ".finseek-journal-00000.jsonl"
        whole = journal.read_bytes()
        (folder / ".model-00001-of-00002.safetensors.partial").write_bytes(b"half")
        journal.write_bytes(whole[: len(whole) - 7])  # the last line is torn
        states.append(dequantize_checkpoint(quantized, folder, resume).resumed)
        assert digests(folder) == expected
    assert states[0] == 0 < states[2]
    # Finished but for the removal of the journal: everything is written once more at the end, nothing is converted.
    (tmp_path / "after40" / ".finseek-journal-00000.jsonl").write_bytes(b"")
    dequantize_checkpoint(quantized, tmp_path / "after40", resume)
    assert digests(tmp_path / "after40") == expected


def break_off(source: Path, out: Path, stream: StreamOptions) -> None:
    """Leave a conversion after six tenths of its bytes."""

    class Killed(BaseException):
        pass

    def stop_late(label: str, done: float, total: float | None, unit: str) -> None:
        if label == "dequantize" and total and done > 0.6 * total:
            raise Killed

    with pytest.raises(Killed):
        dequantize_checkpoint(source, out, DequantizeOptions(stream=stream), stop_late)


def test_a_journal_of_an_older_form_is_refused(quantized: Path, tmp_path: Path) -> None:
    stream, out = StreamOptions(shard_bytes=SHARD_BYTES, resume=True, workers=1), tmp_path / "out"
    break_off(quantized, out, stream)
    journal = out / ".finseek-journal-00000.jsonl"
    journal.write_text(journal.read_text().replace('"digest":', '"sha256":'))
    before = digests(out)
    with pytest.raises(InputError, match=r"journal-00000.jsonl: damaged, or begun by an older finseek .*; delete"):
        dequantize_checkpoint(quantized, out, DequantizeOptions(stream=stream))
    assert digests(out) == before


def test_a_finished_shard_that_is_gone_or_cut_is_made_again(quantized: Path, tmp_path: Path) -> None:
    """Who makes room on a full disk may well delete what a journal calls finished."""
    expected, _ = undisturbed(quantized, tmp_path / "peace")
    stream, out = StreamOptions(shard_bytes=SHARD_BYTES, resume=True, workers=1), tmp_path / "out"
    break_off(quantized, out, stream)
    first, second, *others = sorted(out.glob("*.safetensors"))
    assert others
    first.unlink()
    os.truncate(second, second.stat().st_size - 1)
    assert dequantize_checkpoint(quantized, out, DequantizeOptions(stream=stream)).resumed == len(others)
    assert digests(out) == expected


def test_two_conversions_into_one_folder(quantized: Path, tmp_path: Path) -> None:
    resume, refused = DequantizeOptions(stream=StreamOptions(resume=True)), []

    def second(label: str, done: float, total: float | None, unit: str) -> None:
        if label == "dequantize" and not refused:
            with pytest.raises(InputError, match="another process is converting into it") as caught:
                dequantize_checkpoint(quantized, tmp_path / "out", resume)
            refused.append(caught.value)

    dequantize_checkpoint(quantized, tmp_path / "out", resume, second)
    assert refused
    dequantize_checkpoint(quantized, tmp_path / "peace")
    assert digests(tmp_path / "out") == digests(tmp_path / "peace")


FULL = """
mount -t tmpfs -o size="$1" tmpfs "$2" || exit 77
"$3" -c "$4" "$5" "$2/out"; first=$?
ls -A "$2/out"
mount -o remount,size=64M "$2"
"$3" -c "$4" "$5" "$2/out"; second=$?
cp -r "$2/out" "$6"
umount "$2"
echo "codes $first $second"
"""
CONVERT = """
import shutil, sys
from finseek.checkpoint import DequantizeOptions, StreamOptions, dequantize_checkpoint
from finseek.core.errors import FinseekError
real = shutil.disk_usage
shutil.disk_usage = lambda path: real(path)._replace(free=1 << 40)  # another process fills the disk after the check
try:
    stream = StreamOptions(shard_bytes=300_000, resume=True)
    dequantize_checkpoint(sys.argv[1], sys.argv[2], DequantizeOptions(stream=stream))
except FinseekError as error:
    print("said:", error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_is_one_clear_error_and_resumable(quantized: Path, tmp_path: Path) -> None:
    """A tmpfs of 1.5 MB in a mount namespace of its own, enlarged for the second try."""
    small, out = tmp_path / "small", tmp_path / "copy"
    small.mkdir()
    mine = subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0
    command = [
        "unshare",
        "-rm" if mine else "-m",
        "sh",
        "-c",
        FULL,
        "sh",
        "1500k",
        small,
        sys.executable,
        CONVERT,
        quantized,
        out,
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert "codes 1 0" in done.stdout, done.stdout + done.stderr
    assert f"said: {small}/out: the disk is full; free some space and run again with --resume\n" in done.stdout
    assert "Traceback" not in done.stderr
    assert ".partial" not in done.stdout
    assert "model-00001-of" in done.stdout
    dequantize_checkpoint(quantized, tmp_path / "peace", DequantizeOptions(stream=StreamOptions(shard_bytes=300_000)))
    assert digests(out) == digests(tmp_path / "peace")


def test_another_release_of_the_same_shape_is_not_mixed_in(plain: Path, tmp_path: Path) -> None:
    """Releases of one model share every header; resuming onto the other must not leave half of each."""
    source, folder = tmp_path / "source", tmp_path / "out"
    shutil.copytree(plain, source)
    stream = StreamOptions(shard_bytes=SHARD_BYTES, workers=1, resume=True)

    def stop(label: str, done: float, total: float | None, unit: str) -> None:
        if label == "dequantize" and total and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dequantize_checkpoint(source, folder, DequantizeOptions(stream=stream), stop)
    assert any(folder.glob("*.safetensors"))
    weights = source / "model.safetensors"
    start = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    raw = bytearray(weights.read_bytes())
    raw[start::2] = bytes(byte ^ 1 for byte in raw[start::2])  # the last bit of each number
    weights.write_bytes(raw)
    with pytest.raises(InputError, match="was begun with another source; resume with the same source"):
        dequantize_checkpoint(source, folder, DequantizeOptions(stream=stream))
