from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from finseek.core.errors import ConfigError
from finseek.pipeline.config import Config, valid_keys
from finseek.pipeline.overrides import (
    ENVIRONMENT,
    Override,
    apply_overrides,
    from_arguments,
    from_environment,
    read_dotenv,
)


def test_dotenv_understands_comments_quotes_and_export(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# a comment\n\nexport EODHD_API_KEY='se cret'\nVALIDATION_DAYS=10\nEMPTY=\n")
    assert read_dotenv(path) == {"EODHD_API_KEY": "se cret", "VALIDATION_DAYS": "10", "EMPTY": ""}
    assert read_dotenv(tmp_path / "absent") == {}


def test_a_bad_line_of_dotenv_is_named_and_never_quoted(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("A=1\nsecret-without-a-name\n")
    with pytest.raises(ConfigError, match="line 2") as error:
        read_dotenv(path)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("key", ENVIRONMENT.values())
def test_every_variable_stands_for_a_key_that_exists(key: str) -> None:
    section, leaf = key.split(".")
    assert section in Config.model_fields
    assert leaf in valid_keys([section])


def test_environment_overrides_keys_with_typed_values() -> None:
    found = from_environment({"TRAIN_END_DATE": "2024-12-31", "VALIDATION_DAYS": "7", "USE_WANDB": "", "PATH": "/bin"})
    assert [(o.key, o.value) for o in found] == [("split.train_end", date(2024, 12, 31)), ("split.validation_days", 7)]


@pytest.mark.parametrize("text", ["train.max_steps", "max_steps=3", "=3", ".=3"])
def test_an_assignment_needs_section_key_and_value(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not section\.key=value"):
        from_arguments([text])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("a #b", "a #b"),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("2022-13-30", "2022-13-30"),
        ("yes", True),
    ],
)
def test_values_are_typed_and_never_cut(text: str, value: object) -> None:
    assert from_arguments([f"train.x={text}"])[0].value == value


def test_the_last_override_wins_and_the_tree_stays_untouched() -> None:
    tree = {"train": {"max_steps": 1, "lora": {"rank": 4}}}
    result = apply_overrides(tree, from_arguments(["train.lora.rank=8", "train.max_steps=2", "train.max_steps=3"]))
    assert result == {"train": {"max_steps": 3, "lora": {"rank": 8}}}
    assert tree == {"train": {"max_steps": 1, "lora": {"rank": 4}}}


def test_a_value_is_no_section() -> None:
    with pytest.raises(ConfigError, match="max_steps is the value 1"):
        apply_overrides({"train": {"max_steps": 1}}, [Override("train.max_steps.deep", 1, "--set")])
