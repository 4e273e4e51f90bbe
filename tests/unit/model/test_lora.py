"""LoRA: only what is meant moves, merged equals adapted, the adapter fits transformers' model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finseek.core.errors import ConfigError
from finseek.model import DeepSeekV3
from finseek.model.lora import add_lora, targets_of
from finseek.model.lora_targets import ARCHITECTURES, EXPERTS, MLA, UNTOUCHED, choose_targets

Make = Callable[..., DeepSeekV3]
TARGETS = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "experts"]

# Which the default config of the architecture does not have.
OPTIONAL = {"deepseek_v2": {"q_proj"}, "deepseek_v3": {"q_proj"}, "qwen3_moe": {"gate_proj", "up_proj", "down_proj"}}


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


@pytest.mark.parametrize("targets", ["attention", "all", ["gate_proj", "o_proj"]])
def test_the_adapter_loads_in_peft_on_the_transformers_model(
    make_model: Make, ids: torch.Tensor, tmp_path: Path, targets: str | list[str]
) -> None:
    import warnings

    import peft
    import transformers

    model = make_model()
    model.save_pretrained(tmp_path / "model")
    adapted = add_lora(model, rank=2, alpha=4, target_modules=targets).eval()
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
        assert (
            (adapted(ids).logits - model(ids).logits).abs().max()
            == 0
            < (adapted(ids).logits - DeepSeekV3.from_pretrained(tmp_path / "model")(ids).logits).abs().max()
        )


def test_the_default_is_the_attention_and_the_seed_decides(make_model: Make) -> None:
    first, same, other = (
        {n: p for n, p in add_lora(make_model(), 2, 4, seed=seed).named_parameters() if ".lora_A." in n}
        for seed in (1, 1, 2)
    )
    assert {name.split(".lora_A")[0].rpartition(".")[2] for name in first} == set(MLA) - {"q_proj"}
    assert all(torch.equal(p, same[name]) for name, p in first.items())
    assert not any(torch.equal(p, other[name]) for name, p in first.items())


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (
            ["q_proj", "k_proj", "v_proj", "o_proj"],
            "'q_proj', 'k_proj', 'v_proj' match nothing in a deepseek_v3 model, whose attention has"
            " q_a_proj, q_b_proj, kv_a_proj_with_mqa, kv_b_proj, o_proj:",
        ),
        (["expert"], "near: experts"),
        (["up_prj"], "'up_prj' matches nothing in this model; near: up_proj"),
        (["zzz"], "near: down_proj, eh_proj"),
        ([], "empty"),
        (["gate"], "'gate' matches nothing"),
        (["lm_head"], "'lm_head' matches nothing"),
        ("everything", "is no preset: give attention, attention+experts, all, or a list"),
    ],
)
def test_a_target_that_matches_nothing_is_an_error(make_model: Make, targets: str | list[str], says: str) -> None:
    model = make_model(num_nextn_predict_layers=1)
    with pytest.raises(ConfigError) as refusal:
        add_lora(model, 2, 4, target_modules=targets)
    assert says in str(refusal.value)
    assert all(p.requires_grad for p in model.parameters())


def test_dropout_holds_on_modules_and_not_on_experts(make_model: Make, ids: torch.Tensor) -> None:
    targets = targets_of(make_model(), "all", dropout=0.1)
    assert targets.notices == (
        "lora.dropout 0.1 is 0 on the weights of routed experts and of gate_proj, up_proj, down_proj; it holds on the"
        " other targets",
    )
    assert targets_of(make_model(), "attention", dropout=0.1).notices == ()
    adapted = add_lora(make_model(), 2, 4, dropout=0.1, target_modules="all")
    dropped = {name for name, module in adapted.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert dropped
    assert {name.split(".lora_dropout")[0].rpartition(".")[2] for name in dropped} == set(MLA) - {"q_proj"}
    draw_b(adapted)
    adapted.train()
    assert not torch.equal(adapted(ids).logits, adapted(ids).logits)
    adapted.eval()
    assert torch.equal(adapted(ids).logits, adapted(ids).logits)


def test_rslora_scales_by_the_root_of_the_rank(make_model: Make) -> None:
    adapted = add_lora(make_model(), 4, 8, rslora=True, target_modules=["o_proj"])
    assert {module.scaling["default"] for module in adapted.modules() if hasattr(module, "scaling")} == {4.0}


def test_the_presets_name_every_linear_map_of_every_architecture_and_nothing_else() -> None:
    """Against transformers' own modules, on the meta device."""
    import transformers

    for model_type, architecture in ARCHITECTURES.items():
        config = transformers.AutoConfig.for_model(model_type)
        config.num_hidden_layers = 5  # past the dense first layers of the mixtures
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:5]
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        everything = targets_of(model, "all")
        assert (EXPERTS in everything.names) == architecture.routed, model_type
        optional = OPTIONAL.get(model_type, set())
        assert {*architecture.attention, *architecture.mlp} - optional == set(everything.names) - {EXPERTS}, model_type
        inside = tuple(everything.modules) + tuple(name.removesuffix(".weight") for name in everything.parameters)
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D":
                adapted = any(name.endswith(f".{target}") for target in inside)
                assert adapted == (name.rpartition(".")[2] not in UNTOUCHED), f"{model_type}: {name}"
        attention = targets_of(model, "attention").names
        assert all(("att" in name) == any(name.endswith(f".{target}") for target in attention)
                   for name, module in model.named_modules()
                   if isinstance(module, torch.nn.Linear) and name != "lm_head"), model_type  # fmt: skip


def test_an_unknown_architecture_has_no_presets() -> None:
    linear = ["layers.0.mixer.in_proj", "layers.0.mixer.out_proj", "lm_head"]
    with pytest.raises(ConfigError, match="no presets are known for model_type mamba; name some of in_proj, out_proj"):
        choose_targets("attention", "mamba", linear, routed=False)
    assert choose_targets(["in_proj"], "mamba", linear, routed=False).modules == ("in_proj",)
    with pytest.raises(ConfigError, match="this llama model has no routed experts"):
        choose_targets("attention+experts", "llama", ["self_attn.q_proj"], routed=False)
