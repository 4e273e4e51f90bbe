"""The store under SIGKILL and under two processes at once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from finseek.market.fetch import fetch_prices
from finseek.market.options import PricesOptions
from finseek.market.store import Store

START, END = date(2023, 3, 1), date(2024, 6, 28)
NOW = datetime(2026, 1, 5, tzinfo=UTC)
TICKERS = [f"T{k:02d}" for k in range(24)]
SCRIPT = """
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from pydantic import SecretStr
from finseek.market.fetch import fetch_prices
from finseek.market.options import PricesOptions
url, folder, *tickers = sys.argv[1:]
options = PricesOptions(provider="eodhd", base_url=url, cache_dir=Path(folder), requests_per_minute=0)
print("ready", flush=True)
done = fetch_prices(tickers, date(2023, 3, 1), date(2024, 6, 28), options, now=datetime(2026, 1, 5, tzinfo=UTC),
                    key=SecretStr("k"))
print({outcome.status for outcome in done}, flush=True)
"""


def start(url: str, folder: Path, tickers: list[str] = TICKERS) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url, str(folder), *tickers], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def complete(url: str, folder: Path) -> dict[str, str]:
    """Finish a fetch and give the hash of every symbol."""
    options = PricesOptions(provider="eodhd", base_url=url, cache_dir=folder, requests_per_minute=0)
    outcomes = fetch_prices(TICKERS, START, END, options, now=NOW, key=SecretStr("k"))
    assert {outcome.status for outcome in outcomes} <= {"fetched", "unchanged"}
    assert not list(folder.rglob("*.partial"))
    return hashes(folder)


def hashes(folder: Path) -> dict[str, str]:
    """Hashes of what is held; reading raises where anything is damaged."""
    store = Store(folder)
    names = [path.stem for path in (folder / "eodhd").glob("[!.]*.parquet")]
    return {name: store.read("eodhd", name).sha256 for name in names}


def kill_and_complete(market, tmp_path: Path, kills: int, seed: int) -> None:
    market.pause = 0.004
    process = start(market.url, tmp_path / "undisturbed")
    ready = time.monotonic()
    process.communicate()
    assert process.returncode == 0
    whole = hashes(tmp_path / "undisturbed")
    assert len(whole) == len(TICKERS)
    took = time.monotonic() - ready
    rng = random.Random(seed)
    found = []
    for number in range(kills):
        folder = tmp_path / f"killed-{number}"
        process = start(market.url, folder)
        time.sleep(rng.uniform(0, took))
        process.kill()
        process.communicate()
        before = hashes(folder)
        assert before.items() <= whole.items()
        found.append(len(before))
        assert complete(market.url, folder) == whole
    assert len(set(found)) > 1, "every kill came at the same point"


def test_a_killed_fetch_is_completed_with_the_same_hashes(market, tmp_path):
    kill_and_complete(market, tmp_path, 3, seed=1)


@pytest.mark.soak
def test_thirty_killed_fetches_are_completed_with_the_same_hashes(market, tmp_path):
    kill_and_complete(market, tmp_path, 30, seed=2)


def test_two_processes_share_a_store(market, tmp_path):
    market.pause = 0.01
    both = [start(market.url, tmp_path / "store", order) for order in (TICKERS, TICKERS[::-1])]
    for process in both:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert "failed" not in out
    assert len(market.asked) == len(TICKERS), "a symbol was asked for twice"
    assert hashes(tmp_path / "store") == complete(market.url, tmp_path / "alone")
