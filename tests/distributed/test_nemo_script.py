"""The whole way of a checkpoint, command by command: FP8, BF16, to NeMo, trained there, back, judged, verified."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from finseek.checkpoint import QuantizeOptions, quantize_checkpoint
from finseek.evaluate import EvaluateOptions, load_backend, predict
from finseek.market import generate_prices, write_prices
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder, load_samples
from finseek.theses.synthetic import generate_theses, write_theses_xml

SOURCE = Path(__file__).resolve().parents[2] / "src"


def finseek(*arguments: object) -> str:
    """Run the command line; what it prints."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "finseek.cli.main", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A config that trains adapters of attention and experts in AutoModel on two processes."""
    prices, planted = generate_prices(0, n_tickers=5, n_sessions=190)
    write_prices(prices, tmp_path / "prices.parquet")
    written = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=0)
    write_theses_xml(written.theses, tmp_path / "theses")
    sections = {
        "run": {"name": "study", "output_dir": str(tmp_path / "runs")},
        "theses": {"source": str(tmp_path / "theses")},
        "prices": {"source": str(tmp_path / "prices.parquet")},
        "split": {"train_end": "2022-06-30", "test_start": "2022-07-01", "validation_days": 40},
        "prompt": {"instruction": "Act.", "answer_order": ["action"], "vocab_size": 400,
                   "snapshot": {"features": ["ret1"]}, "max_samples": 40},
        "model": {"path": str(tmp_path / "nemo")},
        "parallel": {"devices_per_node": 2, "expert_model_parallel_size": 2},
        "train": {"engine": "automodel", "max_steps": 6, "global_batch_size": 8, "micro_batch_size": 4,
                  "seq_length": 64, "val_check_interval": 3, "checkpoint_every": 3, "log_every_n_steps": 1,
                  "learning_rate": 0.02, "threads": 1, "balance_loss": 0.0, "mtp_loss": 0.0,
                  "lora": {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "attention+experts"}},
        "evaluate": {"bootstrap_resamples": 200, "baselines": ["majority"]},
        "backtest": {"nulls": 20},
    }  # fmt: skip
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def test_fp8_to_nemo_and_back_to_a_verified_report(study: Path, tmp_path: Path) -> None:
    first = ("--set", "model.path=null", "--set", "model.preset=tiny", "--set", "train.lora=null")
    finseek("run", study, "--until", "samples", *first)
    run = tmp_path / "runs" / "study"
    shape = DeepSeekConfig.preset("tiny", vocab_size=Encoder(run / "samples" / "tokenizer").vocab_size, eos_token_id=1)
    DeepSeekV3(shape, seed=4).to(torch.bfloat16).save_pretrained(tmp_path / "plain")
    shutil.copytree(run / "samples" / "tokenizer", tmp_path / "plain", dirs_exist_ok=True)
    quantize_checkpoint(tmp_path / "plain", tmp_path / "fp8", QuantizeOptions(block=(32, 48)))

    finseek("checkpoint", "dequantize", tmp_path / "fp8", tmp_path / "bf16")
    finseek("checkpoint", "import-nemo", tmp_path / "bf16", tmp_path / "nemo")
    finseek("train", study)
    adapter, merged = run / "train" / "checkpoint", tmp_path / "merged"
    assert (adapter / "adapter_config.json").is_file()
    finseek("checkpoint", "export-hf", adapter, merged, "--base", tmp_path / "bf16")
    finseek("evaluate", study)
    finseek("backtest", study)
    finseek("report", study)
    finseek("manifest", "verify", run)

    log = [json.loads(line) for line in (run / "train" / "train_log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["loss"] < log[0]["loss"]
    for name in ("evaluate/metrics.json", "backtest/equity.csv", "report.html", "manifest.json"):
        assert (run / name).is_file(), name
    samples = load_samples(run / "samples" / "test.jsonl")[:8]
    odds = []
    for folder in (adapter, merged):
        found = predict(samples, load_backend(EvaluateOptions(), folder, ["action"]), EvaluateOptions())
        odds.append(np.array([list((each.p or {}).values()) for each in found]))
    assert odds[0].shape == (8, 5)
    np.testing.assert_allclose(odds[0], odds[1], atol=0.02)  # merged weights are bfloat16
