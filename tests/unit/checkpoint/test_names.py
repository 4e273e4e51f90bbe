# ruff: noqa: E501
"""The table of names against everybody else's names: our model, transformers, AutoModel's own adapter."""

from __future__ import annotations

import os
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finseek.checkpoint.coverage import coverage
from finseek.checkpoint.layouts import from_layout, homeless, placed, to_layout
from finseek.checkpoint.names import COPIES, LAYOUTS, TABLE, weights_of
from finseek.core.errors import InputError
from finseek.model import DeepSeekConfig, DeepSeekV3

BASE = {"num_hidden_layers": 3, "vocab_size": 64, "n_routed_experts": 4}
CONFIGS = {
    "plain": {},
    "mtp": {"num_nextn_predict_layers": 1},
    "two mtp": {"num_nextn_predict_layers": 2},
    "one query matrix": {"q_lora_rank": None},
    "no shared expert": {"n_shared_experts": 0},
    "two shared experts, all MoE": {"n_shared_experts": 2, "first_k_dense_replace": 0},
    "dense": {"first_k_dense_replace": 3},
    "tied": {"tie_word_embeddings": True, "num_nextn_predict_layers": 1},
    "softmax router": {"scoring_func": "softmax", "topk_method": "greedy"},
}


def config_of(name: str) -> DeepSeekConfig:
    return DeepSeekConfig.preset("tiny", **BASE, **CONFIGS[name])


def hugging_face(config: DeepSeekConfig, folder: Path) -> dict[str, torch.Tensor]:
    """What our model saves."""
    from safetensors.torch import load_file

    DeepSeekV3(config, seed=1).save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", CONFIGS)
def test_our_files_have_exactly_the_names_of_the_table(name: str, tmp_path: Path) -> None:
    config = config_of(name)
    tensors = hugging_face(config, tmp_path)
    found = coverage(config, {key: tuple(value.shape) for key, value in tensors.items()})
    assert found, found.lines()


@pytest.mark.parametrize("name", CONFIGS)
def test_hugging_face_to_finseek_and_back(name: str, tmp_path: Path) -> None:
    from finseek.model.state_dict import own_tensors

    config = config_of(name)
    tensors = hugging_face(config, tmp_path)
    ours = dict(to_layout(tensors, config, "finseek"))
    memory = own_tensors(DeepSeekV3.from_pretrained(tmp_path))
    assert ours.keys() == memory.keys()
    for key, value in ours.items():
        assert torch.equal(value, memory[key]), key
    back = dict(from_layout(memory, config, "finseek"))
    assert back.keys() == {weight.name for weight in weights_of(config)}
    for key, value in back.items():
        assert torch.equal(value, tensors[key]), key


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back_in_every_layout(layout: str, name: str, tmp_path: Path) -> None:
    config = config_of(name)
    tensors = hugging_face(config, tmp_path)
    lost = set(homeless(config, layout))
    if layout == "automodel" and config.num_nextn_predict_layers:
        assert all(int(key.split(".")[2]) >= 3 for key in lost)
        with pytest.raises(InputError, match=r"automodel has no place for \d+ weights, first model\.layers\.3\."):
            dict(to_layout(tensors, config, layout))
    else:
        assert not lost
    back = dict(from_layout(dict(to_layout(tensors, config, layout, not lost)), config, layout, not lost))
    assert back.keys() == {weight.name for weight in weights_of(config)} - lost
    for key, value in back.items():
        assert torch.equal(value, tensors[key]), key


AUTOMODEL = """
import sys
from types import SimpleNamespace

import torch
from nemo_automodel.components.models.deepseek_v3.state_dict_adapter import DeepSeekV3StateDictAdapter
from safetensors.torch import load_file

from finseek.checkpoint.layouts import from_layout, to_layout
from finseek.model import DeepSeekConfig

for folder in sys.argv[1:]:
    config, tensors = DeepSeekConfig.from_json(folder), load_file(folder + "/model.safetensors")
    moe = SimpleNamespace(n_routed_experts=config.n_routed_experts, moe_inter_dim=config.moe_intermediate_size,
                          expert_activation="swiglu", expert_bias=False)
    backend = SimpleNamespace(dispatcher="torch", experts="torch")
    adapter = DeepSeekV3StateDictAdapter(SimpleNamespace(), moe, backend, dtype=torch.float32)
    theirs, ours = adapter.from_hf(dict(tensors)), dict(to_layout(tensors, config, "automodel"))
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    back, again = adapter.to_hf(dict(theirs)), dict(from_layout(ours, config, "automodel"))
    assert back.keys() == again.keys() == tensors.keys()
    for key, value in again.items():
        assert torch.equal(value, back[key]) and torch.equal(value, tensors[key]), key
print("equal")
"""


def test_automodels_own_adapter_agrees(tmp_path: Path) -> None:
    """NeMo AutoModel's state-dict adapter for this model is the oracle; it warns at import, hence a process of its own."""
    folders = []
    for name in ("plain", "one query matrix", "no shared expert", "dense"):
        folders.append(str(tmp_path / name))
        hugging_face(config_of(name), tmp_path / name)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-c", AUTOMODEL, *folders]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout.endswith("equal\n"), done.stderr


def test_orphans_and_missing_names_are_listed(tmp_path: Path) -> None:
    config = config_of("mtp")
    tensors = hugging_face(config, tmp_path)
    odd = {**tensors, "model.layers.1.mlp.experts.9.up_proj.weight": torch.zeros(1)}
    del odd["model.norm.weight"]
    with pytest.raises(
        InputError,
        match=r"2 names do not fit the table: missing model\.norm\.weight; orphan model\.layers\.1\.mlp\.experts\.9\.up",
    ):
        dict(to_layout(odd, config, "finseek"))
    with pytest.raises(InputError, match=r"orphan model\.layers\.1\.mlp\.experts\.9"):
        dict(
            from_layout(
                {**dict(to_layout(tensors, config, "megatron")), "model.layers.1.mlp.experts.9": torch.zeros(1)},
                config,
                "megatron",
            )
        )
    with pytest.raises(InputError, match="layout 'nemo' is none of finseek, automodel, megatron"):
        placed(config, "nemo")
    with pytest.raises(InputError, match=r"gives model\.norm\.weight the shape"):
        dict(
            from_layout(
                {**dict(to_layout(tensors, config, "megatron")), "decoder.final_layernorm.weight": torch.zeros(3)},
                config,
                "megatron",
            )
        )
    harmless = {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    assert dict(to_layout(harmless, config, "finseek"))


def test_every_row_is_used_and_no_two_places_collide() -> None:
    used = set()
    for name in CONFIGS:
        config = config_of(name)
        used |= {weight.row for weight in weights_of(config)}
        for layout in LAYOUTS:
            table = placed(config, layout, mtp=layout != "automodel")
            for made_of in table.values():
                keys = [(weight.expert if place.stacked else 0, place.part) for weight, place in made_of]
                assert len(set(keys)) == len(keys)
                parts = {place.part for _, place in made_of}
                assert parts in ({None}, {(0, 2), (1, 2)})
    assert {row.hf for row in set(TABLE) - used} == {row.hf for row in TABLE if row.hf.endswith(".bias")}
    fields = {
        field for row in (*TABLE, *(copy for copy, _ in COPIES)) for _, field, _, _ in string.Formatter().parse(row.hf)
    }
    assert fields <= {None, "layer", "expert"}


def test_transformers_has_the_same_names(tmp_path: Path) -> None:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = config_of("plain")
    raw = config.to_json_dict()
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**{k: v for k, v in raw.items() if k != "architectures"}))
    model.save_pretrained(tmp_path)
    from finseek.checkpoint.shards import read_checkpoint

    shapes = {name: info.shape for name, info in read_checkpoint(tmp_path).tensors.items()}
    found = coverage(config, shapes)
    assert found, found.lines()
    assert not any(re.search(r"inv_freq", name) for name in shapes)
