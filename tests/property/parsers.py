"""Every kind of file that a user can hand over: an example, and what reads it."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl

from finseek.audit.trials import head_file, record_trials, verify_trials
from finseek.backtest import read_signals
from finseek.backtest.corporate import read_actions
from finseek.checkpoint import inspect_checkpoint
from finseek.evaluate import read_predictions
from finseek.evaluate.parse import parse_answer
from finseek.market import load_prices
from finseek.model.config import DeepSeekConfig
from finseek.pipeline import load_config
from finseek.pipeline.manifest import verify_manifest, write_manifest
from finseek.pipeline.overrides import read_dotenv
from finseek.samples.chat_template import load_chat_template
from finseek.samples.instruct_convert import convert_instructions
from finseek.samples.records import load_samples
from finseek.samples.templates import Message
from finseek.theses import read_theses

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


def parquet_of(text: bytes) -> bytes:
    made = io.BytesIO()
    pl.read_csv(text, infer_schema_length=None).write_parquet(made)
    return made.getvalue()


def parse_bytes(path: Path) -> object:
    return parse_answer(path.read_bytes().decode("utf-8", "replace"))


def manifest_of(folder: Path) -> object:
    return list(verify_manifest(folder.parent))


def trials_of(path: Path) -> object:
    """With the file beside the chain that holds its head."""
    if not head_file(path).exists():
        content = path.read_bytes()
        path.unlink()
        chain(path)
        path.write_bytes(content)
    return verify_trials(path)


def actions_of(path: Path) -> object:
    (path.parent / "few.csv").write_bytes(PRICES)
    return read_actions(path, load_prices(path.parent / "few.csv"))


def template_of(path: Path) -> object:
    (path.parent / "tokenizer.json").write_text("{}")
    return load_chat_template(path.parent).render([Message("user", "a"), Message("assistant", "b")])


def instructions_of(path: Path) -> object:
    return convert_instructions(path, path.parent / "out")


def written(name: str, write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def chain(path: Path) -> None:
    for config in ("a", "b"):
        record_trials(path, [(config, 0.1, 77)], kind="backtest", test_data="d", at="2026-01-05T10:00:00+00:00")


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


RUN = {"artifacts": {"x": {"sha256": "0", "bytes": 1}}, "inputs": {}}
SAMPLE = b'{"input":"a","output":"b","metadata":{"ticker":"A","as_of_date":"2024-01-02","action":"BUY"}}\n'
INSTRUCTIONS = b'{"system":"s","user":"u %d","assistant":"a"}\n' * 4
TEMPLATE = b"{% for m in messages %}{{ m['role'] | upper }}: {{ m.content[:3] }}\n{% endfor %}{{ 2 ** 3 }}"
ACTIONS_FILE = b"ticker,date,dividend,split\nA,2024-01-03,0.5,\nA,2024-01-04,,2\n"
MODEL = json.dumps(DeepSeekConfig.preset("tiny").to_json_dict(), indent=1).encode()
THESES = (
    b'<stock-theses ticker="T"><thesis><as-of-date>2024-01-08</as-of-date><reasoning>S&amp;P up</reasoning>'
    b"<action>buy</action><support>1. a</support></thesis></stock-theses>"
)

READERS: dict[str, tuple[str, bytes, Callable[[Path], object]]] = {
    "config": ("config.yaml", CONFIG, load_config),
    "dotenv": (".env", DOTENV, read_dotenv),
    "signals": ("signals.csv", SIGNALS, read_signals),
    "signals parquet": ("signals.parquet", parquet_of(SIGNALS), read_signals),
    "prices": ("prices.csv", PRICES, load_prices),
    "prices parquet": ("prices.parquet", parquet_of(PRICES), load_prices),
    "predictions": ("eval_results.csv", PREDICTIONS, read_predictions),
    "answer": ("answer.txt", ANSWER, parse_bytes),
    "manifest": ("manifest.json", written("manifest.json", lambda path: write_manifest(path, RUN)), manifest_of),
    "weights": ("model.safetensors", safetensors(), lambda path: inspect_checkpoint(path.parent)),
    "model config": ("config.json", MODEL, DeepSeekConfig.from_json),
    "chat template": ("chat_template.jinja", TEMPLATE, template_of),
    "instructions": ("rows.jsonl", INSTRUCTIONS, instructions_of),
    "samples": ("training.jsonl", SAMPLE, load_samples),
    "dividends": ("actions.csv", ACTIONS_FILE, actions_of),
    "theses": ("theses.xml", THESES, lambda path: read_theses(path)),
    "trials": ("trials.jsonl", written("trials.jsonl", chain), trials_of),
}
"""Kind of file: its name, an example, its reader."""
