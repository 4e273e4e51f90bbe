"""What verification finds, with and without the ledger, and which hash the ledger names."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import blake3
import pytest
from tests.unit.checkpoint.plain_reader import raw

from finseek.checkpoint import DequantizeOptions, StreamOptions, dequantize_checkpoint, verify_checkpoint
from finseek.checkpoint.shards import read_checkpoint
from finseek.checkpoint.stream import digest
from finseek.checkpoint.stream.ledger import read_ledger
from finseek.core.errors import ArtifactError, InputError, MissingPart


def test_verify_finds_a_changed_byte_a_lost_and_a_strange_tensor(quantized: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dequantize_checkpoint(quantized, out, DequantizeOptions(stream=StreamOptions(shard_bytes=200_000)))
    whole = verify_checkpoint(out, against=quantized)
    assert (whole.tensors, whole.ledger, whole.source) == (whole.of, True, True)
    part = verify_checkpoint(out, sample=0.2, seed=1)
    assert 0 < part.tensors < part.of
    assert part.nbytes < whole.nbytes
    info = read_checkpoint(out).tensors["model.norm.weight"]
    with (out / info.shard).open("r+b") as file:
        file.seek(info.begin + 5)
        old = file.read(1)
        file.seek(info.begin + 5)
        file.write(bytes([old[0] ^ 1]))
    with pytest.raises(ArtifactError, match=r"1 tensors differ from its ledger: model\.norm\.weight$"):
        verify_checkpoint(out)
    (out / "finseek_ledger.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"1 tensors differ from what .* gives: model\.norm\.weight$"):
        verify_checkpoint(out, against=quantized)
    with pytest.raises(InputError, match="has no ledger"):
        verify_checkpoint(out)
    with pytest.raises(ArtifactError, match=r"is BF16 .*, not F32"):
        verify_checkpoint(out, against=quantized, options=DequantizeOptions(dtype="fp32"))
    with pytest.raises(ArtifactError, match=r"model\.layers\.3\.\S+ does not belong"):
        verify_checkpoint(out, against=quantized, options=DequantizeOptions(mtp="drop"))
    with pytest.raises(InputError, match=r"sample 2 is no share"):
        verify_checkpoint(out, sample=2)


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
def test_the_ledger_names_the_hash_and_verify_follows_it(
    quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(digest, "find_spec", lambda name: algorithm == "blake3" or None)
        digest.fastest.cache_clear()
        dequantize_checkpoint(quantized, tmp_path / "out")
    digest.fastest.cache_clear()
    plain = {"blake3": blake3.blake3, "sha256": hashlib.sha256}[algorithm]
    ledger = read_ledger(tmp_path / "out")
    assert ledger is not None
    for name, (_, data) in raw(tmp_path / "out").items():
        assert ledger.entries[name].digest == f"{algorithm}:{plain(data.tobytes()).hexdigest()}"
    verify_checkpoint(tmp_path / "out", against=quantized)
    monkeypatch.setitem(sys.modules, "blake3", None)
    if algorithm == "sha256":
        verify_checkpoint(tmp_path / "out")
    else:
        with pytest.raises(MissingPart, match=r"a ledger with BLAKE3 hashes needs blake3, .*finseek\[speed\]"):
            verify_checkpoint(tmp_path / "out")
    path = tmp_path / "out" / "finseek_ledger.jsonl"
    path.write_text(path.read_text().replace(f"{algorithm}:", "md5:"))
    with pytest.raises(InputError, match=r"damaged \(digest 'md5:\w+' is of none of blake3, sha256\)"):
        verify_checkpoint(tmp_path / "out")
