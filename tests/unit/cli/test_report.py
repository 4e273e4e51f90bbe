"""``finseek report --compare`` in a real process, on reports as the library makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from finseek.core.artifacts import write_json
from finseek.report import ReportInputs, build_report


def compare(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finseek.cli.main", "report", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=120, check=False)


def test_two_runs_side_by_side_and_what_is_refused(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_json(tmp_path / name / "report.json", build_report(ReportInputs(config={}, run={"name": name}))[1])
    done = compare("--compare", "first", "second", "--out", "both.html", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "both.html\n"), done.stderr
    page = (tmp_path / "both.html").read_text()
    assert "first" in page
    assert "second" in page
    (tmp_path / "bare").mkdir()
    for arguments, part in (
        (("--compare", "first", "bare"), "bare holds no report.json"),
        (("--compare", "first"), "at least two runs"),
        (("first", "second"), "add --compare"),
    ):
        done = compare(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert part in done.stderr
        assert len(done.stderr.splitlines()) == 1
