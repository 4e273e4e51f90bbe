"""Every ready config is valid as a whole; those of the large models ask for the GPUs that the planner finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finseek.model import DeepSeekConfig
from finseek.pipeline import load_config
from finseek.pipeline.stages import check_model
from finseek.train.planner import plan_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_ready_config_is_valid(path: Path) -> None:
    config = load_config(path).config
    assert config.run.name == path.stem
    check_model(config)
    assert path.read_text().startswith("# ")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with DeepSeek-V3's config.json, which is all that the planner reads of a checkpoint."""
    (tmp_path / "config.json").write_text(json.dumps(DeepSeekConfig.preset("deepseek-v3").to_json_dict()))
    return tmp_path


@pytest.mark.parametrize("name", ["deepseek-v3-lora", "deepseek-v3-full"])
def test_the_671b_runs_ask_for_what_the_planner_finds(name: str, checkpoint: Path) -> None:
    config = load_config(CONFIGS / f"{name}.yaml", [f"model.path={checkpoint}"]).config
    train = config.train
    assert (train.engine, train.seq_length, train.micro_batch_size, train.global_batch_size) == (
        "automodel", 65536, 1, 128,
    )  # fmt: skip
    assert (train.max_steps, train.val_check_interval, train.log_every_n_steps) == (1000, 100, 10)
    if name.endswith("lora"):
        assert train.lora is not None
        assert (train.lora.rank, train.lora.alpha, train.lora.dropout) == (32, 64, 0.05)
    else:
        assert train.lora is None
    assert config.model is not None
    report = plan_config(config.model, train, config.parallel, "H100")
    assert report.asked.fits
    assert report.smallest is not None
    assert report.smallest.layout == report.asked.layout
