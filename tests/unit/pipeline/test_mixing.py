"""Instruction data mixed into the training split of a run: in the given share, nothing of the theses lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finseek.core.errors import InputError
from finseek.pipeline import load_config, run


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def until_samples(study: Path, *assignments: str) -> tuple[dict[str, object], Path]:
    result = run(load_config(study, assignments), last="samples")
    return result.outcomes[-1].counts, result.paths.samples


@pytest.fixture
def instructions(tmp_path: Path) -> Path:
    path = tmp_path / "instructions.jsonl"
    rows = ({"input": f"q{i}", "output": f"a{i}", "metadata": {}} for i in range(2000))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_share_holds_and_the_seed_decides(study: Path, instructions: Path) -> None:
    plain, folder = until_samples(study)
    theses = lines(folder / "training.jsonl")
    made = []
    for assignments in ([], ["run.seed=1"], []):
        counts, folder = until_samples(study, f"prompt.mix_with={instructions}", "prompt.mix_share=0.3", *assignments)
        mixed = lines(folder / "training.jsonl")
        own = [row for row in mixed if row["metadata"]]
        assert sorted(map(str, own)) == sorted(map(str, theses))
        assert len(mixed) - len(own) == counts["mixed_in"] == int(len(theses) * 3 / 7)
        assert counts["train"] == plain["train"] == len(theses)
        assert all(row["metadata"] for row in lines(folder / "validation.jsonl"))
        made.append(mixed)
    assert made[0] == made[2] != made[1]
    assert {bool(row["metadata"]) for row in made[0][:30]} == {True, False}


@pytest.mark.parametrize(
    ("share", "content", "message"),
    [
        ("0.9", None, "prompt.mix_share 0.9 beside .* lower the share"),
        ("0.1", '{"messages": []}\n', "instruct.format=samples"),
    ],
)
def test_what_cannot_be_mixed_in(
    study: Path, instructions: Path, share: str, content: str | None, message: str
) -> None:
    if content:
        instructions.write_text(content)
    with pytest.raises(InputError, match=message):
        until_samples(study, f"prompt.mix_with={instructions}", f"prompt.mix_share={share}")
