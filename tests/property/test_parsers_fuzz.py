"""Every file that a user can hand over, mutated: it is read, or refused in one line; nothing else ever happens.

Each seed makes the same mutations. ``make soak`` runs many more of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from finseek.audit.trials import verify_trials
from finseek.backtest import read_signals
from finseek.core.errors import FinseekError
from finseek.evaluate import read_predictions
from finseek.evaluate.parse import parse_answer
from finseek.market import load_prices
from finseek.pipeline import load_config
from finseek.pipeline.overrides import read_dotenv

CONFIG = b"""# a comment
run: {name: study, seed: 3}
theses: {source: data/theses}
split: {train_end: 2024-12-31, test_start: 2025-01-01, validation_days: 30}
prompt:
  snapshot: {features: [ret1, rsi14]}
  answer_order: [action, reasoning]
backtest:
  slippage: 1e-3
  limits: {max_weight: 0.1}
  action_map: {STRONG_SELL: -1, SELL: -1, HOLD: 0, BUY: 1, STRONG_BUY: 1}
"""
SIGNALS = b"ticker,as_of_date,action\nA,2024-01-02,BUY\nA,2024-01-03,hold\nB,2024-01-02,strong sell\n"
PRICES = b"date,ticker,open,high,low,close,adjusted_close,volume\n" + b"".join(
    b"2024-01-%02d,A,10.5,11,10,10.75,10.7,1000\n" % day for day in range(2, 6)
)
PREDICTIONS = (
    b"ticker,as_of_date,gt_action,pred_action,status,p_strong_sell,p_sell,p_hold,p_buy,p_strong_buy,completion\n"
    b'A,2024-01-02,BUY,SELL,scored,0.1,0.4,0.2,0.2,0.1,"<action>SELL</action>"\n'
)
DOTENV = b"# secrets\nexport EODHD_API_KEY='a b'\nVALIDATION_DAYS=30 # days\n"
ANSWER = b"<reasoning>Up 3 % \xe2\x80\x93 strong.</reasoning>\n<support>1. a</support>\n<action>STRONG_BUY</action>"
SPICE = [b"\x00", b"\xff", b"\xef\xbb\xbf", b"nan", b"inf", b"-1", b"1e999", b'"', b",", b"\n", b"\r", b": ", b"&a ",
         b"*a", b"!!python/object:os.system", b"<<", b"[", b"}", b"- ", b"\t", b"2024-02-30", b"<action>", b"</action>",
         b"'", b"=", b"\xe2\x80\xae", b"9" * 30, b"\xed\xa0\x80"]  # fmt: skip


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 5)):
        start, end = sorted(rng.integers(0, len(content) + 1, size=2).tolist())
        end = min(end, start + int(rng.integers(1, 30)))
        piece = content[start:end]
        new = (b"", piece * 3, rng.bytes(len(piece)), SPICE[rng.integers(len(SPICE))], piece.swapcase())
        content = content[:start] + new[rng.integers(len(new))] + content[end:]
    return content


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """A download that ended early. Damage inside a page is left out: polars itself then ends the process."""
    return content[: rng.integers(0, len(content))]


def parquet_of(text: bytes) -> bytes:
    made = io.BytesIO()
    pl.read_csv(text, infer_schema_length=None).write_parquet(made)
    return made.getvalue()


def parse_bytes(path: Path) -> object:
    return parse_answer(path.read_bytes().decode("utf-8", "replace"))


READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "config": ("config.yaml", CONFIG, load_config),
    "dotenv": (".env", DOTENV, read_dotenv),
    "signals": ("signals.csv", SIGNALS, read_signals),
    "signals parquet": ("signals.parquet", parquet_of(SIGNALS), read_signals),
    "prices": ("prices.csv", PRICES, load_prices),
    "prices parquet": ("prices.parquet", parquet_of(PRICES), load_prices),
    "predictions": ("eval_results.csv", PREDICTIONS, read_predictions),
    "answer": ("answer.txt", ANSWER, parse_bytes),
    "trials": ("trials.jsonl", b'{"index": 0, "previous": "", "hash": "x"}\n', verify_trials),
}


def judge(kind: str, tries: int, seed: int, folder: Path) -> int:
    """Read mutants; the number that was accepted."""
    name, content, read = READERS[kind]
    rng, accepted = np.random.default_rng(seed), 0
    for _ in range(tries):
        mutant = cut(content, rng) if "parquet" in kind else mutate(content, rng)
        (folder / name).write_bytes(mutant)
        refused = ""
        try:
            read(folder / name)
            accepted += 1
        except FinseekError as error:
            refused = str(error)
        except Exception as escaped:
            raise AssertionError(f"{kind}: {mutant!r} ends in {type(escaped).__name__}: {escaped}") from escaped
        assert "\n" not in refused, f"{mutant!r}: {refused}"
        assert len(refused) < 1000, f"{mutant!r}: {refused}"
    return accepted


@pytest.mark.parametrize("kind", READERS)
def test_it_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    accepted = judge(kind, 300, 0, tmp_path)
    assert accepted < 300 or kind == "answer"


@pytest.mark.soak
@pytest.mark.parametrize("kind", READERS)
def test_twenty_thousand_of_each(kind: str, tmp_path: Path) -> None:
    for seed in range(1, 21):
        judge(kind, 1000, seed, tmp_path)
