"""LoRA: only what is meant moves, merged equals adapted, the adapter fits transformers' model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finseek.core.errors import ConfigError
from finseek.model import DeepSeekV3
from finseek.model.lora import ATTENTION, add_lora

Make = Callable[..., DeepSeekV3]
TARGETS = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "experts"]


def draw_b(adapted: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.05, generator=generator)


@pytest.mark.parametrize("q_lora_rank", [None, 12])
def test_only_what_is_meant_moves_and_all_of_it_has_a_gradient(
    make_model: Make, ids: torch.Tensor, q_lora_rank: int | None
) -> None:
    model = make_model(q_lora_rank=q_lora_rank, n_group=1, topk_group=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    targets = [t for t in TARGETS if q_lora_rank or not t.startswith("q_")] + ([] if q_lora_rank else ["q_proj"])
    adapted = add_lora(model, rank=2, alpha=4, target_modules=targets).train()
    draw_b(adapted)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trained)
    for target in targets:
        assert any(f".{target}." in name for name in trained), target
    assert sum(".experts." in name for name in trained) == 2 * 2 * 2  # layers × weights × (A, B)
    adapted(ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())
    torch.optim.SGD(trained.values(), lr=0.1).step()
    for name, parameter in adapted.named_parameters():
        if ".lora_" not in name:
            plain = name.replace("base_model.model.", "").replace(".base_layer", "")
            assert torch.equal(parameter, before[plain]), name


def test_it_starts_as_the_model_and_merges_to_the_adapted_one(make_model: Make, ids: torch.Tensor) -> None:
    model = make_model()
    with torch.no_grad():
        plain = model(ids).logits
        adapted = add_lora(model, rank=2, alpha=4, target_modules=TARGETS)
        torch.testing.assert_close(adapted(ids).logits, plain, rtol=0, atol=0)
        draw_b(adapted)
        expected = adapted.eval()(ids).logits
        assert (expected - plain).abs().max() > 1e-2
        greedy = model.generate(ids, max_new_tokens=6)  # absorbed, through adapted projections
        merged = adapted.merge_and_unload()
        assert type(merged) is DeepSeekV3
        torch.testing.assert_close(merged(ids).logits, expected, rtol=0, atol=1e-5)
        assert torch.equal(merged.generate(ids, max_new_tokens=6), greedy)
    assert set(merged.state_dict()) == set(make_model().state_dict())


def test_the_adapter_loads_in_peft_on_the_transformers_model(
    make_model: Make, ids: torch.Tensor, tmp_path: Path
) -> None:
    import warnings

    import peft
    import transformers

    model = make_model()
    model.save_pretrained(tmp_path / "model")
    # On their model PEFT takes `gate_proj` for a part of the fused experts.
    adapted = add_lora(model, rank=2, alpha=4, target_modules=[t for t in TARGETS if t != "gate_proj"]).eval()
    draw_b(adapted)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "model")
        theirs = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)


def test_the_default_is_the_attention_and_the_seed_decides(make_model: Make) -> None:
    first, same, other = (
        {n: p for n, p in add_lora(make_model(), 2, 4, seed=seed).named_parameters() if ".lora_A." in n}
        for seed in (1, 1, 2)
    )
    assert {name.split(".lora_A")[0].rpartition(".")[2] for name in first} == set(ATTENTION) - {"q_proj"}
    assert all(torch.equal(p, same[name]) for name, p in first.items())
    assert not any(torch.equal(p, other[name]) for name, p in first.items())


@pytest.mark.parametrize(
    ("targets", "dropout", "says"),
    [
        (["k_proj"], 0.0, "near: o_proj, kv_b_proj, up_proj"),
        (["q_proj", "v_proj"], 0.0, "'q_proj' matches nothing"),
        (["expert"], 0.0, "near: experts"),
        (["zzz"], 0.0, "near: down_proj, eh_proj"),
        (["experts"], 0.1, "lora.dropout: 0.1 must be 0"),
        ([], 0.0, "empty"),
        (["gate"], 0.0, "'gate' matches nothing"),
    ],
)
def test_a_target_that_matches_nothing_is_an_error(
    make_model: Make, targets: list[str], dropout: float, says: str
) -> None:
    model = make_model(num_nextn_predict_layers=1)
    with pytest.raises(ConfigError) as refusal:
        add_lora(model, 2, 4, dropout=dropout, target_modules=targets)
    assert says in str(refusal.value)
    assert all(p.requires_grad for p in model.parameters())
