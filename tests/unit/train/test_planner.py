"""The planner against the published layouts, against counted bytes, and against its own rules."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from finseek.core.errors import ConfigError
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.flops import parameter_counts
from finseek.model.lora import add_lora
from finseek.model.loss import CHUNK as HELD_AT_ONCE
from finseek.train import LoraOptions, ModelOptions, ParallelOptions, TrainOptions
from finseek.train.engines.lightning.recompute import recompute_layers
from finseek.train.planner import (
    GIB,
    HARDWARE,
    PRECISIONS,
    TRAITS,
    Layout,
    Space,
    Workload,
    adapter_parameters,
    best,
    cheapest,
    layer_activations,
    layouts,
    lines,
    memory,
    plan,
    plan_config,
    smallest,
    tokens_per_second,
)

V3 = DeepSeekConfig.preset("deepseek-v3")
H100 = HARDWARE["H100"]
LORA = adapter_parameters(V3, 32)

# What was published, each with its sequence length, its precision and its outcome.
PUBLISHED = [
    ("8 × H100, full", Layout(8, expert=8), 4096, "mixed", None, False),
    ("8 × H100, full, all BF16", Layout(8, expert=8), 4096, "bf16", None, False),
    ("8 × H100, LoRA on BF16", Layout(8, expert=8), 4096, "mixed", LORA, False),
    ("8 × H100, LoRA on BF16, TP8", Layout(8, tensor=8), 4096, "mixed", LORA, False),
    ("AutoModel full SFT", Layout(256, pipeline=4, expert=64), 4096, "bf16", None, True),
    ("AutoModel LoRA", Layout(128, pipeline=4, expert=32), 4096, "bf16", LORA, True),
    ("AutoModel pre-training", Layout(128, pipeline=8, expert=16), 1024, "bf16", None, True),
    ("NeMo 2.7.3 full SFT", Layout(512, pipeline=8, expert=64, sharding="optimizer"), 4096, "mixed", None, True),
    ("NeMo 2.7.3 LoRA", Layout(40, tensor=8, pipeline=5, sharding="optimizer"), 4096, "mixed", LORA, True),
    ("ScienceOne, ZeRO-3 without offload", Layout(256), 32768, "mixed", None, False),
]


@pytest.mark.parametrize(("name", "layout", "seq_length", "precision", "trainable", "fits"), PUBLISHED)
def test_published_layouts(name, layout, seq_length, precision, trainable, fits):
    work = Workload(V3, seq_length, precision=PRECISIONS[precision], trainable=trainable)
    assert plan(work, layout, H100).fits is fits, name


FAMOUS = {"devices_per_node": 8, "expert_model_parallel_size": 8}


def report(parallel: dict, hardware: str = "H100", model: dict | None = None, **train):
    options = {"engine": "automodel", "seq_length": 4096, "micro_batch_size": 1, "global_batch_size": 128}
    options |= {"gradient_checkpointing": True, "max_steps": 1000}
    origin = ModelOptions(**model or {"preset": "deepseek-v3"})
    return plan_config(origin, TrainOptions(**options | train), ParallelOptions(**parallel), hardware)


def test_the_famous_claim_is_refused_with_what_would_do():
    found = report(FAMOUS)
    assert not found.asked.fits
    line = found.to_json()["refusal"]
    assert line.startswith("671 B parameters on 8 GPUs, EP8, sharding fsdp need 6")
    assert "H100 has 79; the largest part is optimizer" in line
    assert "it fits on 80 GPUs" in line
    assert "\n" not in line
    assert not report(FAMOUS, lora=LoraOptions()).asked.fits
    assert report(FAMOUS, "B200", lora=LoraOptions(), seq_length=1024).asked.memory.weights > 140 * GIB
    assert "does not fit" in list(lines(found))


def test_the_readme_quotes_the_refusals():
    readme = " ".join((Path(__file__).resolve().parents[3] / "README.md").read_text().split())
    assert report(FAMOUS).to_json()["refusal"] in readme
    assert report(FAMOUS, lora=LoraOptions()).to_json()["refusal"] in readme


def test_smallest_is_the_fewest_that_fit_and_cheapest_the_least_money():
    lora = Workload(V3, 4096, trainable=LORA)
    found = smallest(lora, H100)
    assert found is not None
    assert found.fits
    assert found.layout.gpus == 24  # the least that ColossalAI states for LoRA of DeepSeek-V3 on H100
    assert best(lora, H100, 16) is None
    full = Workload(V3, 4096, precision=PRECISIONS["bf16"])
    few, cheap = smallest(full, H100), cheapest(full, H100)
    assert few is not None
    assert cheap is not None
    assert few.layout.gpus <= cheap.layout.gpus
    assert cheap.price <= few.price
    small = smallest(Workload(DeepSeekConfig.preset("base"), 2048), HARDWARE["4090"])
    assert small is not None
    assert small.layout.gpus == 1


def test_price_hours_and_cost_agree():
    work = Workload(V3, 4096, precision=PRECISIONS["bf16"], steps=1000)
    found = plan(work, Layout(256, pipeline=4, expert=64), H100, price=3.0)
    assert found.hours == pytest.approx(1000 * 128 * 4096 / found.tokens_per_second / 3600)
    assert found.cost == pytest.approx(found.hours * 256 * 3.0)
    assert found.cost == pytest.approx(found.price * 1000 * 128 * 4096 / 1e6)
    assert plan(work, found.layout, H100).cost == pytest.approx(found.cost * H100.price / 3.0)


@pytest.mark.parametrize("engine", TRAITS)
def test_each_engine_is_planned_with_what_it_can_split(engine):
    found = report({}, "H100", {"preset": "base"}, engine=engine)
    assert found.asked.fits
    assert found.smallest.layout.gpus == 1
    many = {axis for layout in layouts(V3, H100, 64, TRAITS[engine].space) for axis in ("tensor", "pipeline", "context")
            if getattr(layout, axis) > 1}  # fmt: skip
    assert many == TRAITS[engine].space.axes - {"expert"}


def test_what_an_engine_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"parallel.context…_parallel_size 2: engine lightning splits"):
        report({"devices_per_node": 2, "context_parallel_size": 2}, engine="lightning")
    with pytest.raises(ConfigError, match="'H800' is none of A100-80, H100"):
        report({}, "H800")


def test_four_bits_hold_a_dense_part_but_not_the_experts():
    config = DeepSeekConfig.preset("base")
    frozen = Workload(config, 2048, precision=PRECISIONS["bf16-frozen"], trainable=adapter_parameters(config, 4))
    whole, four = memory(frozen, Layout(1)).weights, memory(replace(frozen, quantized=True), Layout(1)).weights
    counts = parameter_counts(config)
    linear = counts.total - counts.routed - counts.embedding - counts.head
    assert whole - four == pytest.approx(linear * (2 - 0.5625))


@pytest.mark.parametrize("preset", ["attention", "attention+experts", "all"])
def test_adapters_are_counted_as_they_are_made(preset):
    config = DeepSeekConfig.preset("tiny")
    adapted = add_lora(DeepSeekV3(config), 4, 8.0, target_modules=preset)
    made = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert adapter_parameters(config, 4, preset) == made


def test_sizes_that_do_not_divide_are_named():
    work = Workload(V3, 4096)
    for layout, reason in (
        (Layout(10, tensor=4), "no multiple of TP 4"),
        (Layout(8, expert=16), "EP 16 does not divide the 8 ranks"),
        (Layout(16, tensor=16), "leaves the node of 8"),
        (Layout(72, pipeline=72), "exceeds 61 layers"),
        (Layout(24, expert=3), "EP 3 does not divide 256 experts"),
    ):
        with pytest.raises(ConfigError, match=reason):
            plan(work, layout, H100)


@pytest.mark.parametrize("size", ["tensor", "pipeline", "expert"])
def test_splitting_more_never_takes_more_weights(size):
    work = Workload(V3, 4096)
    held = [memory(work, Layout(512, sharding="optimizer", **{size: n})).weights for n in (1, 2, 4, 8)]
    assert held == sorted(held, reverse=True)
    assert held[-1] < 0.6 * held[0]


def test_one_gpu_holds_exactly_the_parameters():
    config = DeepSeekConfig.preset("tiny")
    work = Workload(config, 512, precision=PRECISIONS["fp32"])
    used = memory(work, Layout(1))
    count = sum(parameter.numel() for parameter in DeepSeekV3(config).parameters())
    assert parameter_counts(config).total == count
    assert (used.weights, used.gradients, used.optimizer) == (4 * count, 4 * count, 8 * count)
    assert used.total == sum(getattr(used, part.name) for part in fields(used))


def test_speed_is_the_published_one_and_bubbles_cost():
    anchor = tokens_per_second(Workload(V3, 4096, global_batch_size=8192), Layout(1024, pipeline=1, expert=64), H100)
    assert anchor / 1024 == pytest.approx(1061, rel=0.1)  # Megatron-Core, 1,024 H100
    few = tokens_per_second(Workload(V3, 4096, global_batch_size=128), Layout(256, pipeline=4, expert=64), H100)
    many = tokens_per_second(Workload(V3, 4096, global_batch_size=4096), Layout(256, pipeline=4, expert=64), H100)
    assert few < 0.6 * many


def test_every_enumerated_layout_divides():
    config = DeepSeekConfig.preset("distributed")
    found = list(layouts(config, H100, 16))
    assert len(found) > 20
    assert all(config.n_routed_experts % layout.expert == 0 for layout in found)
    assert Layout(16, tensor=2, pipeline=2, expert=4) in found
    assert all(layout.pipeline == 1 for layout in layouts(config, H100, 16, Space(frozenset({"expert"}))))


class FusedNorm(torch.autograd.Function):
    """What a GPU's fused RMSNorm keeps: its input and one number a row. On a CPU torch composes it of many parts."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, grad):
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def counted_bytes(config: DeepSeekConfig, tokens: int, *, passes: int = 1, recompute: bool = False):
    """Peak bytes of a step, by what they hold, counted by torch's memory tracker on fake tensors; nothing is computed.

    The optimiser's moments are there from an earlier step, the gradients from earlier passes of this one.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    tracker = MemTracker()
    with FakeTensorMode(allow_non_fake_inputs=True):
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = DeepSeekV3(config)
        finally:
            torch.set_default_dtype(torch.float32)
        if recompute:
            recompute_layers(model)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], foreach=False)
        ids = torch.zeros(1, tokens, dtype=torch.int64)
        tracker.track_external(model, optimizer)
        with tracker:
            for each in range(passes):
                if each:
                    tracker.reset_mod_stats()
                model(ids, None, ids, return_logits=False).loss.backward()
                if each == 0 and passes > 1:
                    optimizer.step()
        peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    return {getattr(kind, "name", "Total"): count for kind, count in peak.items()}


def activation_bytes(layers: int, dense: bool, tokens: int) -> int:
    counted = counted_bytes(small_config(layers, dense), tokens)
    return counted.get("ACT", 0) + counted.get("TEMP", 0)


WHOLE = [
    pytest.param("base", {"num_hidden_layers": 2}, False),
    pytest.param("base", {"num_hidden_layers": 6}, True, marks=pytest.mark.soak),
    pytest.param("distributed", {"num_hidden_layers": 2}, False, marks=pytest.mark.soak),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("preset", "overrides", "recompute"), WHOLE)
def test_a_whole_step_takes_the_bytes_that_torch_counts(monkeypatch, preset, overrides, recompute):
    monkeypatch.setattr("finseek.model.norm.RMSNorm.forward", lambda self, x: FusedNorm.apply(x, self.weight))
    monkeypatch.setattr(sys.modules[memory.__module__], "CHUNK", HELD_AT_ONCE["cpu"])
    config = replace(DeepSeekConfig.preset(preset, **overrides), aux_loss_alpha=0.0)
    counted = counted_bytes(config, 1152, passes=2, recompute=recompute)["Total"]
    work = Workload(config, 1152, 1, 2, PRECISIONS["bf16"], recompute=recompute, fused_loss=True)
    used = memory(work, Layout(1, sharding="none"))
    assert used.total - used.margin == pytest.approx(counted, rel=0.1)


def test_the_fused_loss_is_planned_with_the_chunk_that_a_gpu_takes():
    work = Workload(V3, 4096, fused_loss=True)
    fewer = replace(work, seq_length=1024)  # fewer logits than a chunk: all of them
    V, D = V3.vocab_size, V3.hidden_size
    for each, held in ((work, HELD_AT_ONCE["cuda"]), (fewer, 1024 * V)):
        assert memory(each, Layout(1)).logits == 12 * held + each.seq_length * D * 2 + 4 * V * D


def small_config(layers: int, dense: bool) -> DeepSeekConfig:
    preset = DeepSeekConfig.preset("tiny", num_hidden_layers=layers, first_k_dense_replace=layers if dense else 0)
    return replace(preset, aux_loss_alpha=0.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dense", [False, True])
def test_activations_of_a_layer_are_those_that_torch_counts(monkeypatch, dense):
    monkeypatch.setattr("finseek.model.norm.RMSNorm.forward", lambda self, x: FusedNorm.apply(x, self.weight))
    tokens = 1152  # above which the CPU's attention, like the GPU's, keeps no weights
    counted = (activation_bytes(3, dense, tokens) - activation_bytes(1, dense, tokens)) / 2 / tokens
    assert sum(layer_activations(small_config(1, dense), not dense, PRECISIONS["bf16"])) == pytest.approx(
        counted, rel=0.1
    )


def test_recomputation_spares_memory():
    kept = memory(Workload(V3, 4096, recompute=False), Layout(256, pipeline=4, expert=64)).activations
    again = memory(Workload(V3, 4096, recompute=True), Layout(256, pipeline=4, expert=64)).activations
    assert again < 0.2 * kept
    assert again / GIB < 8
