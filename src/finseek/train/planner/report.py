"""A config's plan: its own layout, whether it fits, and what would be better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from finseek.core.errors import ConfigError
from finseek.model.config import DeepSeekConfig
from finseek.model.flops import parameter_counts
from finseek.train.options import ModelOptions, ParallelOptions, TrainOptions
from finseek.train.planner.hardware import GIB, HARDWARE, PRECISIONS, Hardware
from finseek.train.planner.memory import Memory, activations_by_layer
from finseek.train.planner.search import Plan, Space, cheapest, plan, smallest
from finseek.train.planner.workload import Layout, Workload, adapter_parameters


@dataclass(frozen=True)
class Traits:
    """How an engine trains: precisions of all weights and of adapters, what it can split, and its loss.

    Attributes:
        full: precision when all weights are trained.
        adapter: precision with adapters.
        space: layouts that are looked at.
        besides: axes that it has, but that are looked at only where the config asks for them.
        fused_loss: it never holds all logits.
        mtp: it trains the multi-token-prediction layers.
        tensor_splits_experts: its tensor parallelism divides routed experts.
    """

    full: str
    adapter: str
    space: Space
    besides: frozenset[str] = frozenset()
    fused_loss: bool = False
    mtp: bool = False
    tensor_splits_experts: bool = True


TRAITS = {
    "lightning": Traits(
        "bf16-mixed",
        "bf16-mixed",
        Space(frozenset({"tensor", "expert"}), ("fsdp", "none")),
        besides=frozenset({"pipeline"}),
        fused_loss=True,
        mtp=True,
        tensor_splits_experts=False,
    ),
    # Context parallelism there needs Transformer Engine, tensor parallelism (of finseek's plan) goes without it.
    "automodel": Traits(
        "bf16",
        "bf16",
        Space(frozenset({"pipeline", "expert", "context"}), ("fsdp",)),
        besides=frozenset({"tensor"}),
        tensor_splits_experts=False,
    ),
    "trl": Traits("bf16-mixed", "bf16-frozen", Space(frozenset(), ("none",))),
    "megatron": Traits("mixed", "mixed", Space(shardings=("optimizer",))),
}


@dataclass(frozen=True)
class Report:
    """What `finseek plan` says.

    Attributes:
        work: what is trained.
        hardware: on what.
        asked: the config's own layout.
        smallest: the layout that fits with the fewest GPUs; None if none does.
        cheapest: the one with the lowest price of a token.
    """

    work: Workload
    hardware: Hardware
    asked: Plan
    smallest: Plan | None
    cheapest: Plan | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plans = {name: getattr(self, name) for name in ("asked", "smallest", "cheapest")}
        counts = parameter_counts(self.work.config)
        return {
            "parameters": counts.total,
            "active_parameters": counts.active,
            "trainable_parameters": counts.total if self.work.trainable is None else self.work.trainable,
            "hardware": asdict(self.hardware),
            "activations_by_layer": activations_by_layer(self.work, self.asked.layout),
            **{name: None if each is None else _plain(each) for name, each in plans.items()},
            "refusal": None if self.asked.fits else refusal(self.work, self.asked, self.hardware, self.smallest),
        }


def _plain(each: Plan) -> dict[str, Any]:
    return {**asdict(each), "memory": {**asdict(each.memory), "total": each.memory.total}}


def plan_config(
    model: ModelOptions, train: TrainOptions, parallel: ParallelOptions, hardware: str, price: float | None = None
) -> Report:
    """Plan the training of a config.

    Args:
        model: config section.
        train: config section.
        parallel: config section.
        hardware: name in ``HARDWARE``.
        price: dollars of a GPU hour; None takes the table's.

    Raises:
        ConfigError: unknown hardware, or a layout that does not divide or that the engine does not have.
    """
    if hardware not in HARDWARE:
        raise ConfigError(f"--hardware {hardware!r} is none of {', '.join(HARDWARE)}")
    card, traits = HARDWARE[hardware], TRAITS[train.engine]
    work = workload(model, train)
    asked = plan(work, layout_of(parallel, train.engine), card, price)
    return Report(
        work, card, asked, smallest(work, card, price, traits.space), cheapest(work, card, price, traits.space)
    )


def workload(model: ModelOptions, train: TrainOptions) -> Workload:
    """What the config sections train, as the engine that they name trains it."""
    if model.preset is not None:
        config = DeepSeekConfig.preset(model.preset, **model.overrides)
    else:
        assert model.path is not None
        config = DeepSeekConfig.from_json(model.path)
    traits, adapted = TRAITS[train.engine], train.lora is not None
    precision = "fp32" if train.precision == "fp32" else traits.adapter if adapted else traits.full
    return Workload(
        config,
        train.packed_sequence_size or train.seq_length,
        train.micro_batch_size,
        train.global_batch_size,
        PRECISIONS[precision],
        _trainable(config, train),
        train.gradient_checkpointing,
        traits.fused_loss,
        train.load_in_4bit,
        traits.mtp and config.num_nextn_predict_layers > 0,
        traits.tensor_splits_experts,
        train.max_steps,
    )


def _trainable(config: DeepSeekConfig, train: TrainOptions) -> int | None:
    if train.lora is None:
        return None
    wanted = train.lora.target_modules
    preset = wanted if isinstance(wanted, str) else "attention+experts" if "experts" in wanted else "attention"
    return adapter_parameters(config, train.lora.rank, preset)


def layout_of(parallel: ParallelOptions, engine: str) -> Layout:
    """The layout that the config asks for.

    Raises:
        ConfigError: for an axis that the engine does not have.
    """
    sizes = {
        "tensor": parallel.tensor_model_parallel_size,
        "pipeline": parallel.pipeline_model_parallel_size,
        "expert": parallel.expert_model_parallel_size,
        "context": parallel.context_parallel_size,
    }
    allowed = TRAITS[engine].space.axes | TRAITS[engine].besides
    for axis, size in sizes.items():
        if size > 1 and axis not in allowed:
            has = ", ".join(sorted(allowed)) or "no axis"
            raise ConfigError(f"parallel.{axis}…_parallel_size {size}: engine {engine} splits {has} alone: set it to 1")
    shardings = TRAITS[engine].space.shardings
    sharding = parallel.sharding if parallel.sharding in shardings else shardings[0]
    return Layout(parallel.world_size, **sizes, sharding=sharding)


def refusal(work: Workload, asked: Plan, hardware: Hardware, instead: Plan | None) -> str:
    """Why a layout does not fit, and what would: one line."""
    used = asked.memory
    largest = max((part.name for part in fields(Memory)), key=lambda name: getattr(used, name))
    counts = parameter_counts(work.config)
    remedy = f"fits on {instead.layout}" if instead else f"fits on no layout of {hardware.name} that was looked at"
    return (
        f"{counts.total / 1e9:.3g} B parameters on {asked.layout} need {used.total / GIB:,.0f} GiB a GPU,"
        f" {hardware.name} has {hardware.memory / GIB:.0f}; the largest part is {largest}"
        f" ({getattr(used, largest) / GIB:,.0f} GiB); it {remedy}"
    )


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    work, card, asked = report.work, report.hardware, report.asked
    counts = parameter_counts(work.config)
    trained = "all of them" if work.trainable is None else f"adapters of {work.trainable / 1e6:,.1f} M"
    yield f"model     {counts.total / 1e9:,.4g} B parameters, {counts.active / 1e9:,.3g} B active; trained: {trained}"
    yield (
        f"work      sequences of {work.seq_length:,} tokens, {work.micro_batch_size} a pass, {work.global_batch_size} a"
        f" step{'' if work.steps is None else f', {work.steps:,} steps'};"
        f" layers are {'computed again in the backward pass' if work.recompute else 'kept for the backward pass'}"
    )
    yield f"layout    {asked.layout}, {card.name}"
    yield "memory    GiB on the fullest GPU"
    for part in fields(Memory):
        yield f"    {part.name:<12}{getattr(asked.memory, part.name) / GIB:>10,.2f}"
    yield f"    {'total':<12}{asked.memory.total / GIB:>10,.2f} of {card.memory / GIB:.1f}"
    largest = max(activations_by_layer(work, asked.layout))
    yield f"    a layer keeps up to {largest / GIB:,.2f} while it is computed"
    if asked.fits:
        yield f"fits      {_speed(asked)}"
    else:
        yield "does not fit"
    for name, found in (("smallest", report.smallest), ("cheapest", report.cheapest)):
        if found is None:
            yield f"{name:<10}no layout of {card.name} that this engine has fits"
        elif found.layout != asked.layout:
            yield f"{name:<10}{found.layout}: {found.memory.total / GIB:.1f} GiB; {_speed(found)}"
    yield f"speed     an estimate: {card.share:.0%} of {card.tflops:g} TFLOP/s; 28 % was published for 1,024 H100"


def _speed(found: Plan) -> str:
    told = f"{found.tokens_per_second:,.0f} tokens/s, {found.price:,.2f} dollars a million tokens"
    return told if found.hours is None else f"{told}, {found.hours:,.1f} hours, {found.cost:,.0f} dollars"
