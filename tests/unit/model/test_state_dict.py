"""Files: bit-exact there and back, every tensor accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finseek.core.errors import InputError
from finseek.model import DeepSeekV3

Make = Callable[..., DeepSeekV3]


def read(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tied", "depths"), [(False, 2), (True, 1), (False, 0)])
def test_save_load_save_is_bit_exact(
    make_model: Make, tmp_path: Path, dtype: torch.dtype, tied: bool, depths: int
) -> None:
    model = make_model(num_nextn_predict_layers=depths, tie_word_embeddings=tied).to(dtype)
    model.save_pretrained(tmp_path / "a")
    again = DeepSeekV3.from_pretrained(tmp_path / "a")
    again.save_pretrained(tmp_path / "b")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (again.lm_head.weight is again.model.embed_tokens.weight) is tied
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    stored = read(tmp_path / "a")
    assert all(t.dtype == torch.float32 for name, t in stored.items() if name.endswith("e_score_correction_bias"))
    assert stored["model.norm.weight"].dtype == dtype
    assert ("model.layers.3.eh_proj.weight" in stored) == (depths > 0)
    assert ("model.layers.3.shared_head.head.weight" in stored) == (depths > 0)
    assert "model.layers.2.mlp.experts.7.up_proj.weight" in stored


def test_shards_and_their_index(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    whole = read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    model.save_pretrained(tmp_path, max_shard_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert not (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "tokenizer.json").exists()
    assert len(set(index["weight_map"].values())) > 3
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    sharded = read(tmp_path)
    assert sharded.keys() == whole.keys() == index["weight_map"].keys()
    again = DeepSeekV3.from_pretrained(tmp_path)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())
    again.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_dtype_of_loading_leaves_the_bias_alone(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    half = DeepSeekV3.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.lm_head.weight.dtype == torch.bfloat16
    bias = half.routers()[1].e_score_correction_bias
    assert torch.equal(bias, model.routers()[1].e_score_correction_bias)
    assert not half.training


def test_mtp_is_left_out_on_request_only(make_model: Make, tmp_path: Path, ids: torch.Tensor) -> None:
    model = make_model(num_nextn_predict_layers=1)
    model.save_pretrained(tmp_path)
    without = DeepSeekV3.from_pretrained(tmp_path, num_nextn_predict_layers=0)
    assert len(without.model.layers) == 3
    with torch.no_grad():
        torch.testing.assert_close(without(ids).logits, model(ids).logits)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("model.layers.1.mlp.experts.3.up_proj.weight"), "1 weights of this config are missing"),
        (lambda t: t.update(spare=torch.zeros(2)), "no place in this config, first spare"),
        (lambda t: t.update({"model.norm.weight": torch.ones(1)}), "model.norm.weight has shape (1,)"),
        (
            lambda t: t.update({"lm_head.weight": t["lm_head.weight"].to(torch.float8_e4m3fn)}),
            "finseek checkpoint dequantize",
        ),
        (lambda t: [t.pop(name) for name in list(t) if ".layers.3." in name], "num_nextn_predict_layers=0"),
        (lambda t: t["model.layers.3.embed_tokens.weight"].add_(1), "differs from model.embed_tokens.weight"),
    ],
    ids=["missing", "superfluous", "misshapen", "fp8", "no mtp", "other mtp embedding"],
)
def test_what_does_not_fit_is_refused(
    make_model: Make, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], says: str
) -> None:
    make_model(num_nextn_predict_layers=1).save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(InputError) as refusal:
        DeepSeekV3.from_pretrained(tmp_path)
    assert says in str(refusal.value)


def test_a_missing_shard_is_named(make_model: Make, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path, max_shard_bytes=20_000)
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(InputError, match="model-00002-of"):
        DeepSeekV3.from_pretrained(tmp_path)


def test_a_layer_of_the_trunk_is_never_left_out(make_model: Make, tmp_path: Path) -> None:
    make_model(num_nextn_predict_layers=1).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"no place in this config, first model\.layers\.2\.input_layernorm"):
        DeepSeekV3.from_pretrained(tmp_path, num_hidden_layers=2, num_nextn_predict_layers=0)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors", b"xx", "is no whole safetensors file"),
        ("model.safetensors.index.json", b"{}", "is no index of shards"),
        ("model.safetensors.index.json", b"nope", "is no index of shards"),
    ],
)
def test_broken_files_are_named(make_model: Make, tmp_path: Path, name: str, content: bytes, says: str) -> None:
    make_model().save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        DeepSeekV3.from_pretrained(tmp_path)


def test_weights_come_from_the_seed(make_model: Make) -> None:
    first, same, other = (DeepSeekV3(make_model().config, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
