"""What inspect says, from headers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finseek.checkpoint import inspect_checkpoint
from finseek.checkpoint.names import copies_of, weights_of
from finseek.checkpoint.shards import read_checkpoint
from finseek.checkpoint.stream.plan import Out, plan_shards
from finseek.core.errors import InputError
from finseek.model import DeepSeekConfig


def test_a_whole_checkpoint(quantized: Path, plain: Path) -> None:
    found = inspect_checkpoint(quantized)
    assert found.complete
    assert (found.precision, found.block, found.model_type) == ("fp8", (32, 48), "deepseek_v3")
    assert (found.layers, found.mtp_layers, found.mtp_depth, found.experts) == (3, 1, 1, 8)
    before = inspect_checkpoint(plain)
    assert (before.precision, before.block, before.scales) == ("bf16", None, 0)
    assert found.tensors == before.tensors + found.scales
    assert found.parameters == before.parameters
    assert found.nbytes == sum(nbytes for _, nbytes in found.dtypes.values())
    assert json.loads(json.dumps(found.to_json()))["complete"] is True


def test_faults_are_listed_not_raised(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_bytes())
    (copy / "config.json").write_text(json.dumps({**config, "n_routed_experts": 12, "num_nextn_predict_layers": 0}))
    found = inspect_checkpoint(copy)
    assert not found.complete
    assert "model.layers.1.mlp.experts.8.gate_proj.weight" in found.missing
    assert "model.layers.3.eh_proj.weight" in found.orphans
    assert any("mlp.gate.weight has shape [8, 128], where the config says [12, 128]" in line for line in found.faults)
    (copy / "config.json").write_text(json.dumps({**config, "scoring_func": "argmax"}))
    assert "scoring_func: 'argmax'" in inspect_checkpoint(copy).faults[0]
    settings = {**config["quantization_config"], "weight_block_size": [64, 64]}
    (copy / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    assert len(inspect_checkpoint(copy).faults) > 50
    (copy / "config.json").write_text(json.dumps({"model_type": "llama"}))
    found = inspect_checkpoint(copy)
    assert "FP8 weights, but config.json has no quantization_config" in found.faults[-1]
    assert "'llama' has no table of names" in found.notes[0]


def test_the_671b_from_its_headers(tmp_path: Path) -> None:
    """163 sparse files with the names, shapes and types of DeepSeek-V3: 46,183 tensors besides the scales."""
    config = DeepSeekConfig(num_nextn_predict_layers=1)
    groups = []
    for weight in [*weights_of(config), *(weight for weight, _ in copies_of(config).values())]:
        dtype = "F8_E4M3" if weight.row.fp8 else "F32" if weight.name.endswith("_bias") else "BF16"
        groups.append((Out(weight.name, dtype, weight.shape),))
        if weight.row.fp8:
            shape = tuple(-(-n // 128) for n in weight.shape)
            groups.append((Out(weight.name + "_scale_inv", "F32", shape),))
    plans = plan_shards(groups, 4_235_000_000)
    assert len(plans) == 163
    for plan in plans:
        with (tmp_path / plan.file).open("wb") as file:
            file.write(plan.header)
            file.truncate(plan.length)
    settings = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    (tmp_path / "config.json").write_text(json.dumps(config.to_json_dict() | settings))
    places = {name: plan.file for plan in plans for name in plan.begins}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    found = inspect_checkpoint(tmp_path)
    assert found.complete, found.faults[:3]
    assert (found.tensors - found.scales, found.scales) == (46_183, 45_808)
    assert round(found.parameters / 1e9, 1) == 684.5
    assert (found.mtp_layers, found.shards) == (1, 163)


def test_a_wrong_total_size_is_a_note(copy: Path) -> None:
    path = copy / "model.safetensors.index.json"
    index = json.loads(path.read_bytes())
    path.write_text(json.dumps({**index, "metadata": {"total_size": 5}}))
    assert inspect_checkpoint(copy).notes == (
        f"the index says total_size 5, the files hold {read_checkpoint(copy).nbytes} bytes of tensors",
    )
    assert inspect_checkpoint(copy).complete
    path.write_text("[]")
    with pytest.raises(InputError, match="list, where a JSON object belongs"):
        inspect_checkpoint(copy)
