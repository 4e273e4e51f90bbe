"""From adapters, training states and AutoModel's folders back to Hugging Face; PEFT is the oracle of merging."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finseek.checkpoint import StreamOptions, export_hf, inspect_checkpoint, verify_checkpoint
from finseek.core.errors import InputError
from finseek.model import DeepSeekConfig, DeepSeekV3

SMALL = {"num_hidden_layers": 2, "vocab_size": 128, "n_routed_experts": 4}


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    config = DeepSeekConfig.preset("tiny", num_nextn_predict_layers=1, **SMALL)
    DeepSeekV3(config, seed=5).save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    return tmp_path / "base"


@pytest.mark.parametrize("targets", ["attention", "attention+experts", "all"])
def test_merged_as_peft_merges(base: Path, tmp_path: Path, targets: str) -> None:
    from finseek.model.lora import add_lora

    adapted = add_lora(DeepSeekV3.from_pretrained(base), rank=3, alpha=8.0, target_modules=targets)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    export_hf(tmp_path / "adapter", tmp_path / "out", base=base)
    adapted.merge_and_unload().save_pretrained(tmp_path / "peft")
    ours, theirs, before = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "peft"), tensors_of(base)
    assert ours.keys() == theirs.keys() == before.keys()
    changed = [name for name in ours if not torch.equal(ours[name], before[name])]
    assert len(changed) > 5
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-6, rtol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    verify_checkpoint(tmp_path / "out")
    export_hf(tmp_path / "adapter", tmp_path / "kept", base=base, adapter="keep")
    kept = json.loads((tmp_path / "kept" / "adapter_config.json").read_bytes())
    assert kept["base_model_name_or_path"] == str(base.resolve())
    with pytest.raises(InputError, match=r"an adapter is no model without it: give .* --base"):
        export_hf(tmp_path / "adapter", tmp_path / "none")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_bytes()), "use_dora": True}))
    with pytest.raises(InputError, match="use_dora True cannot be merged"):
        export_hf(tmp_path / "adapter", tmp_path / "none", base=base)


@pytest.mark.parametrize(
    ("config", "value", "says"),
    [
        ({"r": 8}, 1.0, r"has rank 2, adapter_config\.json says r 8, by which it would be scaled"),
        ({"r": 0}, 1.0, "r 0 and lora_alpha 8 are no rank and scale"),
        ({"lora_alpha": None}, 1.0, "r 2 and lora_alpha None are no rank and scale"),
        ({}, float("nan"), "q_b_proj holds NaN or infinite numbers; the training diverged"),
        ({}, None, "holds no matrix: there is nothing to merge"),
    ],
)
def test_an_adapter_whose_files_contradict_each_other_is_not_merged(
    base: Path, tmp_path: Path, config: dict[str, object], value: float | None, says: str
) -> None:
    folder, name = tmp_path / "adapter", "base_model.model.model.layers.0.self_attn.q_b_proj.lora_{}.weight"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 8} | config))
    pair = {} if value is None else {name.format("A"): torch.full((2, 32), value), name.format("B"): torch.ones(96, 2)}
    save_file(pair, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=says):
        export_hf(folder, tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


def test_an_adapter_for_another_model(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"})
    )
    name = "base_model.model.model.layers.7.self_attn.o_proj.lora_{}.weight"
    save_file(
        {name.format("A"): torch.ones(2, 128), name.format("B"): torch.ones(128, 2)},
        folder / "adapter_model.safetensors",
    )
    with pytest.raises(
        InputError, match=r"has no model\.layers\.7\.self_attn\.o_proj\.weight, which the adapter changes"
    ):
        export_hf(folder, tmp_path / "out", base=base)
    save_file({name.format("A"): torch.ones(2, 128)}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="only one matrix of its pair"):
        export_hf(folder, tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


def test_automodels_consolidated_folder_gets_its_mtp_layers_back(base: Path, tmp_path: Path) -> None:
    step = tmp_path / "run" / "epoch_0_step_9"
    trained = {name: value + 1 for name, value in tensors_of(base).items() if not name.startswith("model.layers.2.")}
    consolidated = step / "model" / "consolidated"
    consolidated.mkdir(parents=True)
    save_file(trained, consolidated / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(base / "config.json", consolidated)
    (tmp_path / "run" / "LATEST").symlink_to(step.name)
    with pytest.raises(
        InputError, match=r"MTP layers of its config\.json are not there, .* with --base, or .* --mtp drop"
    ):
        export_hf(step, tmp_path / "out")
    export_hf(step, tmp_path / "trunk", mtp="drop")
    assert tensors_of(tmp_path / "trunk").keys() == trained.keys()
    assert DeepSeekV3.from_pretrained(tmp_path / "trunk").config.num_nextn_predict_layers == 0
    export_hf(tmp_path / "run", tmp_path / "out", base=base)
    made, before = tensors_of(tmp_path / "out"), tensors_of(base)
    assert made.keys() == before.keys()
    for name, value in made.items():
        own = {"embed_tokens.weight": "model.embed_tokens.weight", "head.weight": "lm_head.weight"}
        copied = own.get(name.removeprefix("model.layers.2.").removeprefix("shared_head."), name)
        assert torch.equal(value, trained.get(copied, before[name])), name
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    DeepSeekV3.from_pretrained(tmp_path / "out")
    (tmp_path / "run" / "LATEST").unlink()
    (tmp_path / "run" / "LATEST.txt").write_text(step.name)
    export_hf(tmp_path / "run", tmp_path / "from text", base=base)
    assert tensors_of(tmp_path / "from text").keys() == before.keys()
    shutil.rmtree(consolidated)
    with pytest.raises(InputError, match="not consolidated"):
        export_hf(step, tmp_path / "again")
    with pytest.raises(InputError, match=r"no config\.json and no adapter_config\.json"):
        export_hf(tmp_path, tmp_path / "again")


@pytest.mark.parametrize(("key", "prefix"), [("state_dict", "model."), ("model", "")], ids=["lightning", "finseek"])
def test_a_training_state(base: Path, tmp_path: Path, key: str, prefix: str) -> None:
    model = DeepSeekV3.from_pretrained(base)
    torch.save({key: {prefix + name: value + 1 for name, value in model.state_dict().items()}}, tmp_path / "last.ckpt")
    export_hf(tmp_path / "last.ckpt", tmp_path / "out", base=base)
    again = DeepSeekV3.from_pretrained(tmp_path / "out")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value + 1), name
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    export_hf(
        tmp_path / "last.ckpt", tmp_path / "cut", base=base, mtp="drop", stream=StreamOptions(shard_bytes=300_000)
    )
    cut = tensors_of(tmp_path / "cut")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 3
    assert cut.keys() == {name for name in tensors_of(tmp_path / "out") if not name.startswith("model.layers.2.")}
    assert inspect_checkpoint(tmp_path / "cut").complete
    with pytest.raises(InputError, match="is not empty"):
        export_hf(tmp_path / "last.ckpt", tmp_path / "cut", base=base)


@pytest.mark.parametrize("content", [{"other": 1}, {"state_dict": {}}, {"model": {"a": 1}}, [1], b"no pickle"], ids=str)
def test_files_that_are_no_training_state(base: Path, tmp_path: Path, content: object) -> None:
    file = tmp_path / "other.pt"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(
        InputError, match=r"other\.pt: no (state_dict, module or model in it|training state that can be read)"
    ):
        export_hf(file, tmp_path / "none", base=base)
    assert not (tmp_path / "none").exists()


def test_the_adapter_in_a_lightning_state(base: Path, tmp_path: Path) -> None:
    """The same as from PEFT's own folder, merged and kept."""
    from finseek.model.lora import add_lora

    adapted = add_lora(DeepSeekV3.from_pretrained(base), rank=2, alpha=6.0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    states = tmp_path / "states"
    states.mkdir()
    held = {f"model.{name}": value for name, value in adapted.state_dict().items()}
    torch.save({"state_dict": held, "epoch": 1}, states / "last.ckpt")
    with pytest.raises(InputError, match=r"not their rank and alpha; put the adapter_config\.json"):
        export_hf(states / "last.ckpt", tmp_path / "out", base=base)
    shutil.copy(tmp_path / "adapter" / "adapter_config.json", states)
    export_hf(states / "last.ckpt", tmp_path / "out", base=base)
    export_hf(tmp_path / "adapter", tmp_path / "expected", base=base)
    made, expected = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "expected")
    assert made.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in made.items())
    export_hf(states / "last.ckpt", tmp_path / "kept", base=base, adapter="keep")
    kept, own = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("kept", "adapter"))
    assert kept.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in kept.items())


def test_nothing_of_the_users_is_replaced(base: Path, tmp_path: Path) -> None:
    from finseek.model.lora import add_lora

    add_lora(DeepSeekV3.from_pretrained(base), rank=2, alpha=6.0).save_pretrained(tmp_path / "adapter")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for adapter in ("keep", "merge"):
        with pytest.raises(InputError, match="is not empty"):
            export_hf(tmp_path / "adapter", tmp_path / "mine", base=base, adapter=adapter)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="adapter 'both' is none of merge, keep"):
        export_hf(tmp_path / "adapter", tmp_path / "out", base=base, adapter="both")
