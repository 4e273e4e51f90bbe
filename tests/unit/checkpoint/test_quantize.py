"""Casting down: rounding as torch rounds, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.checkpoint.plain_reader import raw

from finseek.checkpoint import QuantizeOptions, dequantize_checkpoint, quantize_checkpoint, verify_checkpoint
from finseek.checkpoint.fp8 import FORMATS
from finseek.checkpoint.quantize import encode
from finseek.checkpoint.shards import read_checkpoint
from finseek.core.errors import ArtifactError, ConfigError, InputError


def test_quantize_rounds_like_torch_and_comes_back_close(plain: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [
            rng.uniform(-450, 450, 50_000),
            rng.normal(0, 0.01, 50_000),
            np.ldexp(rng.uniform(-2, 2, 50_000), -10),
            [0.0, -0.0],
        ]
    ).astype(np.float32)
    for name, dtype in (("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)):
        expected = torch.from_numpy(values).to(dtype).view(torch.uint8).numpy()
        np.testing.assert_array_equal(encode(values, FORMATS[name]), expected)
    quantize_checkpoint(plain, tmp_path / "q")
    dequantize_checkpoint(tmp_path / "q", tmp_path / "out")
    before, after = raw(plain), raw(tmp_path / "out")
    quantized = read_checkpoint(tmp_path / "q").tensors
    assert set(before) == set(after)
    for name, (_, data) in before.items():
        if name + "_scale_inv" not in quantized:
            np.testing.assert_array_equal(data, after[name][1])
            continue
        w = (data.copy().view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        v = (after[name][1].copy().view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        assert np.abs(w - v).max() <= np.abs(w).max() / 16  # half a step of three bits of mantissa, under the largest
    for name, source in (("q", plain), ("out", tmp_path / "q")):
        found = verify_checkpoint(tmp_path / name, against=source, sample=0.3)
        assert (found.ledger, found.source) == (True, True)
    info = read_checkpoint(tmp_path / "q").tensors["model.layers.0.self_attn.o_proj.weight_scale_inv"]
    with (tmp_path / "q" / info.shard).open("r+b") as file:
        file.seek(info.begin)
        file.write(b"\1")
    (tmp_path / "q" / "finseek_ledger.jsonl").rename(tmp_path / "ledger")
    with pytest.raises(InputError, match="has no ledger"):
        verify_checkpoint(tmp_path / "q")
    (tmp_path / "ledger").rename(tmp_path / "q" / "finseek_ledger.jsonl")
    with pytest.raises(ArtifactError, match=r"1 tensors differ from its ledger: model\.layers\.0\.self_attn\.o_proj"):
        verify_checkpoint(tmp_path / "q", against=plain)
    with pytest.raises(InputError, match="is FP8 already"):
        quantize_checkpoint(tmp_path / "q", tmp_path / "qq")
    with pytest.raises(ConfigError, match="on_nan: 'keep'"):
        QuantizeOptions(on_nan="keep")
