"""transformers on the same checkpoint gives the same answers as the native back end."""

from __future__ import annotations

import pytest

from finseek.core.actions import ACTIONS
from finseek.core.errors import FinseekError
from finseek.evaluate import EvaluateOptions, load_backend, predict

ORDERS = {"action first": ("action", "reasoning", "support"), "reasoning first": ("reasoning", "support", "action")}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("mode", ["score", "generate"])
def test_agrees_with_the_native_back_end(memoriser, name, mode):
    folder, samples = memoriser(name)
    rows = {}
    for backend in ("native", "huggingface"):
        options = EvaluateOptions(backend=backend, mode=mode, batch_size=4, max_new_tokens=40)
        rows[backend] = predict(samples, load_backend(options, folder, ORDERS[name]), options)
    for ours, theirs in zip(rows["native"], rows["huggingface"], strict=True):
        assert ours.completion == theirs.completion
        assert ours.pred_action == theirs.pred_action is not None
        if mode == "score":
            assert [ours.p[a] for a in ACTIONS] == pytest.approx([theirs.p[a] for a in ACTIONS], abs=1e-5)


def test_an_adapter_is_loaded_on_its_base(memoriser, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder, samples = memoriser("action first")
    model = AutoModelForCausalLM.from_pretrained(folder)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["o_proj"], init_lora_weights=False))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.mul_(20)
    adapted.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    options = EvaluateOptions(backend="huggingface")
    base, tuned = (predict(samples, load_backend(options, path), options) for path in (folder, tmp_path))
    assert [row.p for row in base] != [row.p for row in tuned]


def test_an_adapter_of_our_own_engine_answers_as_its_merged_model(memoriser, tmp_path):
    import torch

    from finseek.model import DeepSeekV3
    from finseek.model.lora import add_lora

    folder, samples = memoriser("action first")
    adapted = add_lora(DeepSeekV3.from_pretrained(folder), rank=4, alpha=8, target_modules="all")
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)  # as the engines do
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    for name in ("adapter", "merged"):
        (tmp_path / name / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    ours, merged = (
        predict(samples, load_backend(options, tmp_path / name), options)
        for name, options in (("adapter", EvaluateOptions()), ("merged", EvaluateOptions(backend="native")))
    )
    for one, other in zip(ours, merged, strict=True):
        assert [one.p[a] for a in ACTIONS] == pytest.approx([other.p[a] for a in ACTIONS], abs=1e-5)


def test_a_folder_without_a_model_is_named(memoriser, tmp_path):
    folder, _ = memoriser("action first")
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(FinseekError, match=str(tmp_path)):
        load_backend(EvaluateOptions(backend="huggingface"), tmp_path)
