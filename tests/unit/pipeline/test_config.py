from __future__ import annotations

from datetime import date
from pathlib import Path

import jsonschema
import pytest
import yaml

from finseek.core.errors import ConfigError
from finseek.pipeline.config import json_schema
from finseek.pipeline.config_file import load_config, smoke_test

GOOD = """
run: {name: study, seed: 3}
theses: {source: data}
split: {train_end: 2024-12-31, test_start: 2025-01-01}
model: {preset: tiny}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_a_config_is_typed_frozen_and_complete(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD)).config
    assert config.split is not None
    assert config.split.train_end == date(2024, 12, 31)
    assert config.theses.source == Path("data")
    assert config.backtest.transaction_cost == 0.001
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("backtest: {slipage: 0.1}", ["backtest.slipage", "nearest valid key is slippage"]),
        ("slippage: 0.1", ["slippage is unknown", "backtest.slippage"]),
        ("backtest: {capital: lots}", ["backtest.capital", '"lots"', "number"]),
        ("backtest: {slippage: 2}", ["backtest.slippage is 2", "less than 1"]),
        ("run: {seed: 1.5}", ["run.seed is 1.5", "integer"]),
        ("run: {name: '../x'}", ["run.name"]),
        ("split: {train_end: 2024-12-31}", ["split.test_start is missing"]),
        ("split: {train_end: 2025-01-01, test_start: 2025-01-01}", ["test_start 2025-01-01", "not after train_end"]),
        ("run: {seed: 1}\nrun: {seed: 2}", ["'run'", "line 1", "line 2"]),
        ("- a", ["holds a list"]),
        ("split: {train_end: 2022-02-30, test_start: 2023-01-01}", ["no valid YAML", "day is out of range"]),
        ("train: {learning_rate: .nan}", ["train.learning_rate is nan", "finite"]),
        ("? [a]\n: 1", ["as a key"]),
        ("a: &x {b: 1}\nrun: {<<: *x}", ["merges with <<"]),
        ("a: [", ["no valid YAML"]),
    ],
)
def test_each_fault_is_one_line_with_key_value_and_rule(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, text))
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="finseek init"):
        load_config(tmp_path / "absent.yaml")


def test_set_beats_the_environment_and_the_environment_beats_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    environment = {"VALIDATION_DAYS": "10", "TRAIN_END_DATE": "2024-11-30"}
    loaded = load_config(path, ["split.validation_days=20"], environment)
    assert loaded.config.split is not None
    assert (loaded.config.split.validation_days, loaded.config.split.train_end) == (20, date(2024, 11, 30))
    assert [o.origin for o in loaded.overrides] == [
        "environment variable TRAIN_END_DATE",
        "environment variable VALIDATION_DAYS",
        "--set",
    ]


def test_a_smoke_test_is_small_and_runs_beside(tmp_path: Path) -> None:
    smoke = smoke_test(load_config(write(tmp_path, GOOD))).config
    assert (smoke.run.name, smoke.train.max_steps, smoke.run.seed) == ("study-smoke", 10, 3)


def test_the_schema_accepts_what_the_config_accepts(tmp_path: Path) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(load_config(write(tmp_path, GOOD)).config.to_json(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"backtest": {"slipage": 1}}, schema)


def test_what_a_config_says_of_itself_reads_back_as_the_same(tmp_path: Path) -> None:
    """Sections that are absent are null there, and null is absent."""
    given = tmp_path / "given.yaml"
    given.write_text("split: {train_end: 2024-12-31, test_start: 2025-01-01}\nmodel:\nbacktest:\n")
    config = load_config(given).config
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(config.to_json()))
    assert load_config(again).config == config
