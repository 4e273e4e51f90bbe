"""Nothing that another tokenizer, template or checkpoint made is taken for what this config would make."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from finseek.pipeline import load_config, run

JINJA = "{% for message in messages %}{{ MARK + message['content'] + eos_token }}{% endfor %}"


def statuses(config: Path, *assignments: str) -> dict[str, str]:
    return {one.name: one.status for one in run(load_config(config, assignments), last="evaluate").outcomes}


@pytest.fixture
def tokenizer(study: Path, tmp_path: Path) -> Path:
    """A tokenizer of the user's own."""
    made = run(load_config(study, ["run.name=first"]), last="samples").paths.samples / "tokenizer"
    shutil.copytree(made, tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_another_template_on_the_same_samples_is_trained_and_asked_again(study: Path, tokenizer: Path) -> None:
    mine = f"prompt.tokenizer={tokenizer}"
    assert set(statuses(study, mine).values()) == {"done"}
    assert set(statuses(study, mine).values()) == {"unchanged"}
    again = statuses(study, mine, "prompt.template=simple")
    assert (again["train"], again["evaluate"]) == ("done", "done")


def test_a_tokenizer_whose_chat_template_was_edited_is_another(study: Path, tokenizer: Path) -> None:
    mine = (f"prompt.tokenizer={tokenizer}", "prompt.template=tokenizer")
    for mark in ("'a'", "'b'"):
        (tokenizer / "chat_template.jinja").write_text(JINJA.replace("MARK", mark))
        told = statuses(study, *mine)
        assert {told[stage] for stage in ("samples", "train", "evaluate")} == {"done"}
    copied = run(load_config(study, mine), last="samples").paths.samples / "tokenizer" / "chat_template.jinja"
    assert "'b'" in copied.read_text()
