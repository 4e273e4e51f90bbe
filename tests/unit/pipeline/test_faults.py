"""What the world does to a run: full and read-only disks, odd paths and clocks, tiny and huge data, secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from finseek.core.errors import ConfigError, InputError
from finseek.market import Prices, generate_prices, load_prices, write_prices
from finseek.pipeline import load_config, run
from finseek.pipeline.manifest import verify_manifest
from finseek.theses.synthetic import generate_theses, write_theses_xml

RUN = """
from pathlib import Path
from sys import argv, exit, stderr
from finseek.core.errors import FinseekError
from finseek.pipeline import load_config, run
try:
    run(load_config(Path(argv[1]), argv[2:]), last="samples")
except (FinseekError, OSError) as error:
    print(f"said: {error}")
    exit(1)
"""
ON_A_DISK = """
mount -t tmpfs -o "$1" tmpfs "$2" || exit 77
"$3" -c "$4" "$5" run.output_dir="$2"
code=$?
find "$2" -name '*.partial' | sed 's/^/left: /'
mount -o remount,rw,size=64M "$2"
"$3" -c "$4" "$5" run.output_dir="$2"
echo "codes $code $?"
umount "$2"
"""


def on_a_disk(options: str, study: Path, tmp_path: Path) -> str:
    """Run twice on a tmpfs in a mount namespace of its own: as mounted with the options, then with room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "-rm", "sh", "-c", ON_A_DISK, "sh", options, disk, sys.executable, RUN, study]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_full_disk_is_one_line_and_the_next_run_completes(study: Path, tmp_path: Path) -> None:
    said = on_a_disk("size=300k", study, tmp_path)
    assert "codes 1 0" in said, said
    assert "No space left on device" in said
    assert "left:" not in said


def test_a_read_only_disk_is_one_line(study: Path, tmp_path: Path) -> None:
    said = on_a_disk("ro,size=64M", study, tmp_path)
    assert "codes 1 0" in said, said
    assert "Read-only file system" in said


def test_spaces_and_letters_of_the_world_in_every_path(study: Path, market: Path, tmp_path: Path) -> None:
    odd = tmp_path / "Börse und Märkte 市場 'x'"
    odd.mkdir()
    (odd / "thèses").symlink_to(market / "theses")
    (odd / "prix du marché.parquet").symlink_to(market / "prices.parquet")
    wanted = [
        f"theses.source={odd / 'thèses'}",
        f"prices.source={odd / 'prix du marché.parquet'}",
        f"run.output_dir={odd / 'Läufe'}",
    ]
    run(load_config(study, wanted))
    assert list(verify_manifest(odd / "Läufe" / "study")) == []
    assert (odd / "Läufe" / "study" / "report.html").is_file()


def test_a_clock_that_was_set_back_runs_nothing_again(study: Path, market: Path) -> None:
    """What is unchanged is a matter of content, not of time."""
    run(load_config(study), last="samples")
    for path in market.rglob("*"):
        os.utime(path, (10**9, 10**9))
    again = run(load_config(study), last="samples")
    assert {outcome.status for outcome in again.outcomes} == {"unchanged"}


def test_one_ticker_is_a_run(study: Path, market: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "S0.xml").symlink_to(market / "theses" / "S0_theses.xml")
    pl.read_parquet(market / "prices.parquet").filter(pl.col("ticker") == "S0").write_parquet(tmp_path / "one.parquet")
    run(load_config(study, [f"theses.source={tmp_path / 'one'}", f"prices.source={tmp_path / 'one.parquet'}"]))
    assert list(verify_manifest(tmp_path / "runs" / "study")) == []


def test_one_session_is_one_clear_line(study: Path, market: Path, tmp_path: Path) -> None:
    prices = pl.read_parquet(market / "prices.parquet")
    prices.filter(pl.col("date") == pl.col("date").max()).write_parquet(tmp_path / "day.parquet")
    with pytest.raises(InputError) as error:
        run(load_config(study, [f"prices.source={tmp_path / 'day.parquet'}"]))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs" / "study" / "manifest.json").exists()


@pytest.mark.parametrize("place", ["theses.jsonl", "prices.parquet", "raw/all.jsonl"])
def test_no_copy_replaces_what_a_run_reads(tmp_path: Path, place: str) -> None:
    (tmp_path / "raw").mkdir()
    for name in ("theses.jsonl", "prices.parquet", "raw/all.jsonl"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "config.yaml").write_text(f"run: {{output_dir: '{tmp_path / 'runs'}'}}")
    source = tmp_path / place
    assignments = [
        f"theses.source={source.parent if source.parent.name == 'raw' else tmp_path / 'theses.jsonl'}",
        f"prices.source={tmp_path / 'prices.parquet'}",
        f"theses.jsonl_output={source}",
    ]
    with pytest.raises(ConfigError, match="write elsewhere"):
        run(load_config(tmp_path / "config.yaml", assignments), last="theses")
    assert source.read_text() == "mine"


def test_skipping_every_stage_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("theses: {source: raw}")
    with pytest.raises(ConfigError, match="leaves no stage"):
        run(load_config(tmp_path / "config.yaml"), last="theses", skip=["theses"])


def test_secrets_stand_in_no_artifact(study: Path, tmp_path: Path) -> None:
    secrets = {"EODHD_API_KEY": "sesame-e", "WANDB_API_KEY": "sesame-w", "OPENAI_API_KEY": "sesame-o"}
    run(load_config(study, environment={**secrets, "VALIDATION_DAYS": "40"}))
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"sesame" in path.read_bytes()]


@pytest.mark.soak
def test_ten_thousand_tickers(study: Path, tmp_path: Path) -> None:
    n, s = 10_000, 70
    few, planted = generate_prices(0, n_tickers=100, n_sessions=s)
    tickers = tuple(f"T{i:05d}" for i in range(n))

    def many(column: np.ndarray) -> np.ndarray:
        return np.tile(column, (1, n // 100))

    columns = (few.open, few.high, few.low, few.close, few.volume, few.adjusted_close)
    write_prices(Prices(few.sessions, tickers, *map(many, columns)), tmp_path / "prices.parquet")
    written = generate_theses(many(planted.signal), few.sessions, tickers, seed=0)
    write_theses_xml(written.theses, tmp_path / "theses")
    days = sorted({thesis.as_of_date for thesis in written.theses})
    cut = len(days) // 2
    assert len(load_prices(tmp_path / "prices.parquet").tickers) == n
    result = run(
        load_config(
            study,
            [
                f"theses.source={tmp_path / 'theses'}",
                f"prices.source={tmp_path / 'prices.parquet'}",
                f"split.train_end={days[cut]}",
                f"split.test_start={days[cut + 1]}",
                "split.validation_days=7",
                "split.label_horizon=1",
                "prompt.max_samples=400",
            ],
        )
    )
    assert result.outcomes[0].counts["kept"] == len(written.theses)
    assert list(verify_manifest(tmp_path / "runs" / "study")) == []
