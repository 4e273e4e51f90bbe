from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finseek.market import generate_prices, write_prices
from finseek.theses.synthetic import generate_theses, write_theses_xml

STUDY = {
    "split": {"train_end": "2022-06-30", "test_start": "2022-07-01", "validation_days": 40},
    "prompt": {
        "instruction": "Act.",
        "answer_order": ["action"],
        "vocab_size": 400,
        "snapshot": {"features": ["ret1", "ret5"]},
    },
    "model": {
        "preset": "tiny",
        "overrides": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "intermediate_size": 32,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "num_attention_heads": 2,
        },
    },
    "train": {
        "max_steps": 6,
        "global_batch_size": 8,
        "micro_batch_size": 8,
        "seq_length": 64,
        "val_check_interval": 3,
        "checkpoint_every": 2,
        "log_every_n_steps": 1,
        "threads": 1,
    },
    "evaluate": {"bootstrap_resamples": 200},
    "backtest": {"nulls": 20},
}


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Theses and prices of five made-up tickers."""
    folder = tmp_path_factory.mktemp("market")
    prices, planted = generate_prices(0, n_tickers=5, n_sessions=190)
    write_prices(prices, folder / "prices.parquet")
    written = generate_theses(planted.signal, prices.sessions, prices.tickers, seed=0)
    write_theses_xml(written.theses, folder / "theses")
    return folder


@pytest.fixture
def study(market: Path, tmp_path: Path) -> Path:
    """A config on that market, whose run takes seconds."""
    sources = {
        "theses": {"source": str(market / "theses")},
        "prices": {"source": str(market / "prices.parquet")},
        "run": {"name": "study", "output_dir": str(tmp_path / "runs")},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **sources}))
    return path
