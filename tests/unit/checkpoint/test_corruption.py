# ruff: noqa: E501
"""Every way to damage a checkpoint is named precisely, and nothing is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finseek.checkpoint import dequantize_checkpoint
from finseek.checkpoint.shards import INDEX, read_checkpoint
from finseek.cli.main import main
from finseek.core.errors import InputError

WEIGHT = "model.layers.1.mlp.experts.2.down_proj.weight"
SCALE = WEIGHT + "_scale_inv"


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def write(path: Path, entries: dict[str, Any] | bytes, data: bytes) -> None:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def home(folder: Path, name: str) -> Path:
    return folder / read_checkpoint(folder).tensors[name].shard


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the header of the shard that holds a tensor."""
    path = home(folder, name)
    entries, data = header(path)
    change(entries)
    write(path, entries, data)


def poke(folder: Path, name: str, value: bytes, at: int = 0) -> None:
    """Overwrite bytes of a tensor."""
    info = read_checkpoint(folder).tensors[name]
    with (folder / info.shard).open("r+b") as file:
        file.seek(info.begin + at)
        file.write(value)


def in_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_bytes())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def in_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def remove_tensor(folder: Path, name: str) -> None:
    """Take a tensor out of its shard and the index, the others moving up."""
    path = home(folder, name)
    entries, data = header(path)
    begin, end = entries.pop(name)["data_offsets"]
    for entry in entries.values():
        if "data_offsets" in entry and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [n - (end - begin) for n in entry["data_offsets"]]
    write(path, entries, data[:begin] + data[end:])
    in_index(folder, lambda places: places.pop(name))


def add_tensor(folder: Path, name: str, dtype: str, shape: list[int], nbytes: int) -> None:
    path = home(folder, WEIGHT)
    entries, data = header(path)
    entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + nbytes]}
    write(path, entries, data + bytes(nbytes))
    in_index(folder, lambda places: places.update({name: path.name}))


def truncate(folder: Path) -> None:
    path = home(folder, WEIGHT)
    path.write_bytes(path.read_bytes()[:-1000])


def lengthen(folder: Path) -> None:
    path = home(folder, WEIGHT)
    path.write_bytes(path.read_bytes() + b"\0")


def header_length(folder: Path) -> None:
    path = home(folder, WEIGHT)
    path.write_bytes((1 << 40).to_bytes(8, "little") + path.read_bytes()[8:])


def empty_file(folder: Path) -> None:
    home(folder, WEIGHT).write_bytes(b"\1\2")


def flip_in_header(folder: Path) -> None:
    path = home(folder, WEIGHT)
    raw = bytearray(path.read_bytes())
    raw[8] ^= 0x10  # the opening brace
    path.write_bytes(raw)


def twice_in_header(folder: Path) -> None:
    path = home(folder, WEIGHT)
    entries, data = header(path)
    text = json.dumps(entries)
    write(path, (text[:-1] + f', "{WEIGHT}": {json.dumps(entries[WEIGHT])}}}').encode(), data)


def twice_in_two_shards(folder: Path) -> None:
    other = next(folder / shard for shard in read_checkpoint(folder).shards if shard != home(folder, WEIGHT).name)
    entries, data = header(other)
    entries[WEIGHT] = {"dtype": "U8", "shape": [4], "data_offsets": [len(data), len(data) + 4]}
    write(other, entries, data + b"1234")


def move_in_index(folder: Path) -> None:
    here = home(folder, WEIGHT).name
    other = next(shard for shard in read_checkpoint(folder).shards if shard != here)
    in_index(folder, lambda places: places.update({WEIGHT: other}))


CORRUPTIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated shard": (truncate, r"model-\d+-of-\d+\.safetensors: truncated: \d+ bytes, where its header says \d+"),
    "shard too long": (lengthen, r"too long: \d+ bytes, where its header says \d+"),
    "wrong header length": (header_length, r"bytes cannot hold a header of 1099511627776"),
    "file of two bytes": (empty_file, r"2 bytes cannot hold a header of"),
    "flipped byte in the header": (flip_in_header, r"the header is damaged \("),
    "missing shard": (lambda f: home(f, WEIGHT).unlink(), r"shard model-\S+ of the index is missing \(1 of \d+\)"),
    "stray shard": (lambda f: (f / "model-x.safetensors").write_bytes(b""), r"model-x\.safetensors is not in the index"),
    "no index": (lambda f: (f / INDEX).unlink(), rf"weight files and no {re.escape(INDEX)}"),
    "index that is no JSON": (lambda f: (f / INDEX).write_text("{"), r"index\.json: not JSON"),
    "index names a tensor that is nowhere": (
        lambda f: in_index(f, lambda p: p.update(ghost=home(f, WEIGHT).name)), r"the index places ghost in model-\S+, which",
    ),
    "index forgets a tensor": (lambda f: in_index(f, lambda p: p.pop(WEIGHT)), rf"{WEIGHT} of model-\S+ is not in the index"),
    "index names another shard": (move_in_index, rf"the index places {WEIGHT} in model-\S+, but model-\S+ holds it"),
    "tensor twice in a header": (twice_in_header, rf"the header is damaged \({WEIGHT} is there twice\)"),
    "tensor in two shards": (twice_in_two_shards, rf"tensor {WEIGHT} lies in model-\S+ and in model-\S+"),
    "missing scale": (lambda f: remove_tensor(f, SCALE), rf"FP8 weight {WEIGHT} \(model-\S+\) has no scale {SCALE}"),
    "missing weight": (lambda f: remove_tensor(f, WEIGHT), rf"scale {SCALE} has no weight {WEIGHT}"),
    "scale of a weight that is not FP8": (
        lambda f: add_tensor(f, "model.norm.weight_scale_inv", "F32", [1], 4),
        r"scale model\.norm\.weight_scale_inv belongs to a weight in BF16",
    ),
    "wrong grid": (
        lambda f: edit(f, SCALE, lambda h: h[SCALE].update(shape=h[SCALE]["shape"][::-1])),
        rf"scale {SCALE} has shape \[1, 4\], where \[128, 48\] in blocks of \[32, 48\] needs \[4, 1\]",
    ),
    "scale in whole numbers": (lambda f: edit(f, SCALE, lambda h: h[SCALE].update(dtype="I32")), rf"scale {SCALE} is I32"),
    "NaN scale": (lambda f: poke(f, SCALE, np.float32(np.nan).tobytes(), 8), rf"{SCALE}\[2, 0\] is nan; a scale is finite"),
    "negative scale": (lambda f: poke(f, SCALE, np.float32(-1).tobytes()), rf"{SCALE}\[0, 0\] is -1\.0; a scale is finite"),
    "NaN weight": (lambda f: poke(f, WEIGHT, b"\x7f", 77), rf"model-\S+: {WEIGHT} holds 1 NaN or infinite numbers"),
    "NaN in a BF16 tensor": (lambda f: poke(f, "model.norm.weight", b"\x80\xff"), r"model\.norm\.weight holds 1 NaN"),
    "offsets that do not fit the shape": (
        lambda f: edit(f, WEIGHT, lambda h: h[WEIGHT].update(shape=[128, 47])), rf"{WEIGHT}, F8_E4M3 \(128, 47\), takes 6016",
    ),
    "overlapping tensors": (
        lambda f: edit(f, WEIGHT, lambda h: h[WEIGHT].update(data_offsets=[n - 2 for n in h[WEIGHT]["data_offsets"]])),
        r"(overlaps the tensor before it|leaves a gap before it) \(byte \d+, not \d+\)",
    ),
    "unknown dtype": (lambda f: edit(f, WEIGHT, lambda h: h[WEIGHT].update(dtype="F4")), rf"{WEIGHT} is 'F4', none of"),
    "entry without a shape": (lambda f: edit(f, WEIGHT, lambda h: h[WEIGHT].pop("shape")), rf"{WEIGHT} has no dtype, shape"),
    "dtype that is no name": (lambda f: edit(f, WEIGHT, lambda h: h[WEIGHT].update(dtype=[])), rf"{WEIGHT} is \[\], none of"),
    "header nested without end": (lambda f: write(home(f, WEIGHT), b"[" * 200_000, b""), r"the header is damaged \("),
    "header that is no text": (lambda f: write(home(f, WEIGHT), b"\xff\xfe{}", b""), r"the header is damaged \("),
    "header that is a list": (lambda f: write(home(f, WEIGHT), b"[1]", b""), r"the header is no JSON object"),
    "index whose weight_map is a list": (
        lambda f: (f / INDEX).write_text('{"metadata": [], "weight_map": []}'), r"no weight_map of tensor names to file names",
    ),
    "shard outside the folder": (
        lambda f: in_index(f, lambda p: p.update({WEIGHT: "../other.safetensors"})), r"shard \.\./other\.safetensors of the index is missing",
    ),
    "config that is no object": (lambda f: (f / "config.json").write_text("[]"), r"config\.json: list, where a JSON object"),
    "quantization_config that is no object": (
        lambda f: in_config(f, lambda c: c.update(quantization_config="fp8")), r"quantization_config 'fp8' is no JSON object",
    ),
    "negative shape": (lambda f: edit(f, WEIGHT, lambda h: h[WEIGHT].update(shape=[-128, -48])), r"has shape \(-128, -48\)"),
    "no quantization_config": (lambda f: in_config(f, lambda c: c.pop("quantization_config")), r"FP8 weights, but config\.json"),
    "another quantisation": (
        lambda f: in_config(f, lambda c: c["quantization_config"].update(quant_method="awq")), r"quant_method 'awq' is not 'fp8'",
    ),
    "no block size": (
        lambda f: in_config(f, lambda c: c["quantization_config"].update(weight_block_size=128)), r"weight_block_size 128 is no",
    ),
    "orphan tensor": (
        lambda f: add_tensor(f, "model.layers.1.mlp.experts.8.down_proj.bias", "BF16", [1], 2),
        r"1 tensors do not fit its config\.json: orphan model\.layers\.1\.mlp\.experts\.8\.down_proj\.bias",
    ),
    "missing tensor": (lambda f: remove_tensor(f, "model.norm.weight"), r"config\.json: missing model\.norm\.weight"),
    "shape that the config denies": (lambda f: in_config(f, lambda c: c.update(vocab_size=500)), r"\[512, 128\], where the config"),
    "more layers than tensors": (lambda f: in_config(f, lambda c: c.update(num_nextn_predict_layers=2)), r"missing model\.layers\.4\."),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_is_named_and_nothing_is_written(name: str, copy: Path, tmp_path: Path) -> None:
    corrupt, message = CORRUPTIONS[name]
    corrupt(copy)
    with pytest.raises(InputError, match=message) as caught:
        dequantize_checkpoint(copy, tmp_path / "out")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_says_one_line_and_exits_with_2(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    truncate(copy)
    monkeypatch.setattr("sys.argv", ["finseek", "checkpoint", "dequantize", str(copy), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    assert left.value.code == 2
    assert re.fullmatch(r"finseek: \S+: truncated: \d+ bytes, where its header says \d+; download it again\n", said.err)
    assert said.out == ""
    assert not (tmp_path / "out").exists()


def test_the_undamaged_copy_converts(copy: Path, tmp_path: Path) -> None:
    dequantize_checkpoint(copy, tmp_path / "out")


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        dequantize_checkpoint(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="no weights; a checkpoint folder holds"):
        dequantize_checkpoint(tmp_path, tmp_path / "out")
