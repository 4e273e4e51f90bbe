"""The streaming conversion: exact, complete, bounded, resumable."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.unit.checkpoint import reference
from tests.unit.checkpoint.plain_reader import raw

from finseek.checkpoint import (
    DequantizeOptions,
    StreamOptions,
    dequantize_checkpoint,
)
from finseek.checkpoint.fp8 import TARGETS
from finseek.checkpoint.shards import read_checkpoint
from finseek.checkpoint.stream.direct import PAGE, Reader, buffer
from finseek.core.errors import ConfigError, FinseekError, InputError

SMALL_SHARDS = StreamOptions(shard_bytes=200_000)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_every_number_equals_the_reference(quantized: Path, tmp_path: Path, dtype: str) -> None:
    dequantize_checkpoint(quantized, tmp_path / "out", DequantizeOptions(dtype=dtype, stream=SMALL_SHARDS))
    before, after = raw(quantized), raw(tmp_path / "out")
    assert set(after) == {name for name in before if not name.endswith("_scale_inv")}
    for name, (info, data) in after.items():
        source, codes = before[name]
        assert info.shape == source.shape
        if source.dtype == "F8_E4M3":
            scale, values = before[name + "_scale_inv"]
            expected = reference.dequantize(
                codes.reshape(info.shape),
                values.copy().view(np.float32).reshape(scale.shape),
                (32, 48),
                source.dtype,
                dtype,
            )
        elif source.dtype == "BF16":
            assert info.dtype == TARGETS[dtype].header
            word = codes.copy().view(np.uint16).astype(np.uint32) << 16
            expected = reference.round_to(word.view(np.float32), dtype)
        else:
            assert (source.dtype, info.dtype) == ("F32", "F32")  # the router's bias
            expected = codes
        np.testing.assert_array_equal(data, np.ascontiguousarray(expected).reshape(-1).view(np.uint8), err_msg=name)


def test_what_a_finished_folder_holds(quantized: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said: list[tuple[str, float, float | None, str]] = []
    done = dequantize_checkpoint(
        quantized, out, DequantizeOptions(stream=SMALL_SHARDS), lambda *call: said.append(call)
    )
    index = json.loads((out / "model.safetensors.index.json").read_bytes())
    made = read_checkpoint(out)
    assert index["metadata"]["total_size"] == made.nbytes == done.nbytes
    assert set(index["weight_map"]) == set(made.tensors)
    assert done.tensors == len(made.tensors)
    assert done.shards == len(made.shards) > 5
    config = json.loads((out / "config.json").read_bytes())
    assert "quantization_config" not in config
    assert config["torch_dtype"] == "bfloat16"
    assert (out / "tokenizer.json").read_text() == '{"version": "1.0"}'
    names = {path.name for path in out.iterdir()} - set(made.shards)
    assert names == {
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "modeling_deepseek.py",
        "finseek_ledger.jsonl",
    }
    for shard in made.shards:
        assert (out / shard).stat().st_mode & 0o777 == 0o644
        header = (out / shard).read_bytes()[8 : 8 + int.from_bytes((out / shard).read_bytes()[:8], "little")]
        assert json.loads(header)["__metadata__"] == {"format": "pt"}
    labels = {(label, unit) for label, _, _, unit in said}
    assert labels == {("look for NaN", "B"), ("dequantize", "B")}
    assert [call[1] for call in said if call[0] == "dequantize"][-1] == said[-1][2]


def test_safetensors_and_transformers_read_it(plain: Path, quantized: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import DeepseekV3ForCausalLM

    from finseek.model import DeepSeekV3

    out = tmp_path / "out"
    dequantize_checkpoint(quantized, out, DequantizeOptions(dtype="fp32", stream=SMALL_SHARDS))
    ours, theirs = DeepSeekV3.from_pretrained(out), DeepseekV3ForCausalLM.from_pretrained(out, dtype=torch.float32)
    # The same weights by another road: load_file, repeat the scales, multiply.
    stored = {}
    for shard in read_checkpoint(quantized).shards:
        stored |= load_file(quantized / shard)
    direct = DeepSeekV3.from_pretrained(plain, dtype=torch.float32)
    from finseek.model.state_dict import own_tensors, parts

    for name, tensor in own_tensors(direct).items():
        for part, view in parts(name, tensor.data):
            value = stored[part].float()
            if part + "_scale_inv" in stored:
                scale = stored[part + "_scale_inv"].repeat_interleave(32, 0).repeat_interleave(48, 1)
                value = value * scale[: value.shape[0], : value.shape[1]]
            view.copy_(value)
    ids = torch.randint(0, 512, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = direct(ids).logits
        assert torch.equal(ours(ids).logits, expected)
        torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(
            expected, DeepSeekV3.from_pretrained(plain, dtype=torch.float32)(ids).logits, atol=1e-4
        )


def test_the_real_shape_that_transformers_cannot_load(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 0x7F, (576, 7168), dtype=np.uint8)
    scales = rng.uniform(1e-4, 1e-2, (5, 56)).astype(np.float32)
    name = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"
    write_shard(source / "model.safetensors", {name: ("F8_E4M3", codes), name + "_scale_inv": ("F32", scales)})
    settings = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (source / "config.json").write_text(json.dumps({"quantization_config": settings}))
    dequantize_checkpoint(source, tmp_path / "out")
    (info, data) = raw(tmp_path / "out")[name]
    expected = reference.dequantize(codes, scales, (128, 128), "F8_E4M3", "bf16")
    np.testing.assert_array_equal(data.view(np.uint16).reshape(info.shape), expected)


def write_shard(path: Path, tensors: dict[str, tuple[str, np.ndarray]]) -> None:
    """A safetensors file with a header of odd length, so that nothing in it is aligned."""
    entries, at = {}, 0
    for name, (dtype, array) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    header = json.dumps(entries).encode()
    header += b" " * (len(header) % 2 == 0)
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"".join(a.tobytes() for _, a in tensors.values()))


def test_e5m2_and_unaligned_data(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(4)
    tensors = {}
    for shape in [(1, 130), (129, 257), (4097, 127), (3, 5)]:
        codes = rng.integers(0, 0x7C, shape, dtype=np.uint8)
        name = f"w{shape[0]}.weight"
        tensors[name] = ("F8_E5M2", codes)
        tensors[name + "_scale_inv"] = (
            "F32",
            rng.uniform(0, 1, (-(-shape[0] // 16), -(-shape[1] // 8))).astype(np.float32),
        )
    tensors["empty"] = ("BF16", np.zeros((0, 4), np.uint16))
    tensors["single"] = ("I64", np.array(7, np.int64))
    write_shard(source / "model.safetensors", tensors)
    settings = {"quant_method": "fp8", "weight_block_size": [16, 8]}
    (source / "config.json").write_text(json.dumps({"quantization_config": settings}))
    # Two megabytes force strips of a few block rows.
    dequantize_checkpoint(source, tmp_path / "out", DequantizeOptions(stream=StreamOptions(workers=2, memory=400_000)))
    after = raw(tmp_path / "out")
    for name, (dtype, codes) in tensors.items():
        if dtype == "F8_E5M2":
            expected = reference.dequantize(codes, tensors[name + "_scale_inv"][1], (16, 8), dtype, "bf16")
            np.testing.assert_array_equal(after[name][1].view(np.uint16).reshape(codes.shape), expected)
    assert after["single"][1].view(np.int64)[0] == 7
    assert after["empty"][0].shape == (0, 4)


@pytest.mark.parametrize("kernel", ["numba", "torch"])
@pytest.mark.parametrize("direct", [True, False])
def test_nothing_but_the_options_that_say_so_changes_the_result(
    quantized: Path, tmp_path: Path, kernel: str, direct: bool
) -> None:
    dequantize_checkpoint(quantized, tmp_path / "a", DequantizeOptions(stream=SMALL_SHARDS))
    stream = StreamOptions(shard_bytes=200_000, workers=1, memory=1 << 21, direct=direct, kernel=kernel)
    dequantize_checkpoint(quantized, tmp_path / "b", DequantizeOptions(stream=stream))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_mtp_dropped_by_the_depth_of_the_config(quantized: Path, tmp_path: Path) -> None:
    from finseek.model import DeepSeekV3

    dequantize_checkpoint(quantized, tmp_path / "out", DequantizeOptions(mtp="drop"))
    assert not any(name.startswith("model.layers.3.") for name in read_checkpoint(tmp_path / "out").tensors)
    assert json.loads((tmp_path / "out" / "config.json").read_bytes())["num_nextn_predict_layers"] == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    DeepSeekV3.from_pretrained(tmp_path / "out")


def test_several_processes_share_the_shards(quantized: Path, tmp_path: Path) -> None:
    dequantize_checkpoint(quantized, tmp_path / "one", DequantizeOptions(stream=SMALL_SHARDS))
    barrier, failed = threading.Barrier(3, timeout=60), []

    def rank(k: int) -> None:
        try:
            stream = StreamOptions(shard_bytes=200_000, rank=k, world=3, barrier=barrier.wait, workers=1)
            dequantize_checkpoint(quantized, tmp_path / "three", DequantizeOptions(stream=stream))
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=rank, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert digests(tmp_path / "one") == digests(tmp_path / "three")


def test_destinations_that_are_refused(quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="lies in the source"):
        dequantize_checkpoint(quantized, quantized / "inside")
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        dequantize_checkpoint(quantized, out)
    with pytest.raises(InputError, match=r"holds notes\.txt and no conversion to resume"):
        dequantize_checkpoint(quantized, out, DequantizeOptions(stream=StreamOptions(resume=True)))
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=1_000_000))
    with pytest.raises(InputError, match=r"GB are to be written and .* GB are free"):
        dequantize_checkpoint(quantized, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_options_and_memory_that_are_refused(quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MiB of buffers for the widest tensor"):
        dequantize_checkpoint(quantized, tmp_path / "out", DequantizeOptions(stream=StreamOptions(memory=50_000)))
    for wrong in ({"dtype": "int8"}, {"mtp": "maybe"}, {"on_nan": "ignore"}):
        with pytest.raises(ConfigError, match="is none of"):
            DequantizeOptions(**wrong)
    with pytest.raises(ConfigError, match=r"rank: 2 must be in 0\.\.1"):
        StreamOptions(rank=2, world=2)
    with pytest.raises(ConfigError, match="workers: 0"):
        StreamOptions(workers=0)
    assert not (tmp_path / "out").exists()


def test_resume_of_another_job_is_refused(quantized: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dequantize_checkpoint(quantized, out, DequantizeOptions(stream=SMALL_SHARDS))
    again = DequantizeOptions(stream=StreamOptions(shard_bytes=200_000, resume=True))
    before = digests(out)
    assert dequantize_checkpoint(quantized, out, again).resumed == len(read_checkpoint(out).shards)
    assert digests(out) == before
    with pytest.raises(InputError, match="was finished with another source or other options"):
        dequantize_checkpoint(quantized, out, DequantizeOptions(dtype="fp32", stream=again.stream))
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / ".finseek-journal-00000.jsonl").write_text('{"finseek_journal": 1, "job": {"kind": "dequantize"}}\n')
    with pytest.raises(InputError, match="was begun with another dtype, mtp, nan, shard_bytes, source"):
        dequantize_checkpoint(quantized, begun, again)
    with pytest.raises(InputError, match="holds an unfinished conversion; continue with --resume"):
        dequantize_checkpoint(quantized, begun)


def test_nan_is_an_error_a_stop_or_kept(copy: Path, tmp_path: Path) -> None:
    source = read_checkpoint(copy)
    info = source.tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
    with (copy / info.shard).open("r+b") as file:
        file.seek(info.begin + 100)
        file.write(b"\xff\x7f")
    with pytest.raises(InputError, match=rf"{info.shard}: {info.name} holds 2 NaN or infinite numbers"):
        dequantize_checkpoint(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FinseekError, match="holds 2 NaN"):
        dequantize_checkpoint(copy, tmp_path / "stop", DequantizeOptions(on_nan="stop"))
    assert not list((tmp_path / "stop").glob("*.safetensors"))
    done = dequantize_checkpoint(copy, tmp_path / "keep", DequantizeOptions(on_nan="keep"))
    assert done.nonfinite == 2
    assert list(raw(tmp_path / "keep")[info.name][1].view(np.uint16)[100:102]) == [0x7FC0, 0x7FC0]


def test_fp16_overflow_is_not_silent(copy: Path, tmp_path: Path) -> None:
    info = read_checkpoint(copy).tensors["model.layers.0.mlp.up_proj.weight_scale_inv"]
    with (copy / info.shard).open("r+b") as file:
        file.seek(info.begin)
        file.write(np.float32(1e4).tobytes())
    with pytest.raises(FinseekError, match=r"up_proj\.weight holds numbers too large for fp16; choose bf16 or fp32"):
        dequantize_checkpoint(copy, tmp_path / "out", DequantizeOptions(dtype="fp16"))


def test_a_source_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 * PAGE + 10))
    for direct in (True, False):
        reader = Reader(tmp_path, direct)
        into = buffer(8 * PAGE)
        assert reader.read("f", 17, 2 * PAGE, into).nbytes == 2 * PAGE
        with pytest.raises(FinseekError, match="ends at byte 12298 while it is read"):
            reader.read("f", 17, 4 * PAGE, into)
        reader.close()
