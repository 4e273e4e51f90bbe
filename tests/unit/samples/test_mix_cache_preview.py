from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from finseek.core.errors import InputError
from finseek.samples import Encoder, Sample, write_samples
from finseek.samples.mix import mix_files
from finseek.samples.preview import preview
from finseek.samples.token_cache import encode_file


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"a":{i}}}\n' for i in range(100)))
    (tmp_path / "b.jsonl").write_text("".join(f'{{"b":{i}}}\n' for i in range(1000)))
    return tmp_path / "a.jsonl", tmp_path / "b.jsonl"


def test_the_scarce_part_decides(parts: tuple[Path, Path], tmp_path: Path) -> None:
    counts = mix_files({parts[0]: 0.3, parts[1]: 0.7}, tmp_path / "out.jsonl", seed=1)
    assert list(counts.values()) == [{"lines": 100, "taken": 100}, {"lines": 1000, "taken": 233}]
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert len(set(lines)) == len(lines) == 333
    assert Counter(line[2] for line in lines) == {"a": 100, "b": 233}
    assert "b" in {line[2] for line in lines[:20]}


def test_the_seed_decides(parts: tuple[Path, Path], tmp_path: Path) -> None:
    made = []
    for seed in (1, 1, 2):
        mix_files({parts[0]: 1, parts[1]: 1}, tmp_path / "out.jsonl", seed=seed)
        made.append((tmp_path / "out.jsonl").read_bytes())
    assert made[0] == made[1] != made[2]


def test_what_cannot_be_mixed(parts: tuple[Path, Path], tmp_path: Path) -> None:
    for shares in ({}, {parts[0]: 0.0}, {parts[0]: -1.0}, {parts[0]: float("nan")}):
        with pytest.raises(InputError, match="above zero"):
            mix_files(shares, tmp_path / "out.jsonl", seed=1)
    with pytest.raises(InputError, match="cannot be read"):
        mix_files({tmp_path / "c.jsonl": 1}, tmp_path / "out.jsonl", seed=1)
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        mix_files({tmp_path / "c.jsonl": 1}, tmp_path / "out.jsonl", seed=1)


def test_tokens_come_back_from_the_cache(samples: list[Sample], tokenizer: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "s.jsonl", samples)
    cache = tmp_path / "cache"
    fresh = encode_file(tmp_path / "s.jsonl", tokenizer, "deepseek", 4096, cache)
    (kept,) = cache.iterdir()
    before = kept.stat().st_mtime_ns
    again = encode_file(tmp_path / "s.jsonl", tokenizer, "deepseek", 4096, cache)
    assert kept.stat().st_mtime_ns == before
    encoder = Encoder(tokenizer)
    assert len(fresh) == len(again) == len(samples)
    for place, sample in enumerate(samples):
        for tokens in (fresh, again):
            for mine, theirs in zip(tokens[place], encoder.encode(sample), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_whatever_decides_the_tokens_changes_the_key(samples: list[Sample], tokenizer: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "s.jsonl", samples)
    write_samples(tmp_path / "t.jsonl", samples[1:])
    cache = tmp_path / "cache"
    encode_file(tmp_path / "s.jsonl", tokenizer, "deepseek", 4096, cache)
    encode_file(tmp_path / "s.jsonl", tokenizer, "deepseek", 4096, cache, truncate=True)
    encode_file(tmp_path / "s.jsonl", tokenizer, "deepseek", None, cache)
    encode_file(tmp_path / "s.jsonl", tokenizer, "simple", 4096, cache)
    encode_file(tmp_path / "t.jsonl", tokenizer, "deepseek", 4096, cache)
    changed = Path(shutil.copytree(tokenizer, tmp_path / "changed"))
    (changed / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    encode_file(tmp_path / "t.jsonl", changed, "deepseek", 4096, cache)
    assert len(list(cache.iterdir())) == 6
    short = encode_file(tmp_path / "s.jsonl", tokenizer, "deepseek", 60, cache, truncate=True)
    assert short.truncated.all()
    assert set(np.diff(short.starts)) == {60}


def test_no_samples(tokenizer: Path, tmp_path: Path) -> None:
    write_samples(tmp_path / "s.jsonl", [])
    assert len(encode_file(tmp_path / "s.jsonl", tokenizer, "deepseek", 10, None)) == 0


@pytest.mark.parametrize("template", ["deepseek", "simple"])
def test_preview_shows_the_mask(samples: list[Sample], tokenizer: Path, template: str) -> None:
    encoder = Encoder(tokenizer, template)
    sample = samples[3]
    runs, tokens, truncated = preview(sample, encoder)
    assert [kind for kind, _ in runs][:4] == [0, 2, 1, 2]
    assert "".join(text for kind, text in runs if kind) == sample.output + encoder.template.end
    assert (1, f"{sample.metadata['action']}</action>") in runs
    assert "".join(text for _, text in runs) == encoder.decode(encoder.encode(sample).input_ids)
    assert not truncated
    short = preview(sample, encoder, tokens - 5)
    assert (short.tokens, short.truncated) == (tokens - 5, True)


def test_preview_does_not_obey_a_text(tokenizer: Path) -> None:
    sample = Sample("a\x1b[31mb\u202e – é", "<action>BUY</action>", {})
    (_, text), *_ = preview(sample, Encoder(tokenizer)).runs
    assert "a\\x1b[31mb\\u202e – é" in text
