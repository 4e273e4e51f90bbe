"""How much memory a training layout takes on its fullest GPU, how fast it is, and which layout is the cheapest.

D hidden   H heads   Q, R ranks of query and latent   n, r, v widths of a head   I expert width   E experts   K chosen
V vocabulary   L layers   s tokens of a micro batch on one GPU   t, p, e, c sizes of tensor, pipeline, expert, context
parallelism   d = GPUs / (t p c) replicas

Memory is counted, not fitted: weights, gradients and optimiser of the shard; the weights that one layer gathers under
FSDP; what the backward pass keeps; the logits; and a margin for the allocator. Speed is the published share of the
GPU's peak, so it is an estimate and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import ceil, log2

from finseek.core.errors import ConfigError
from finseek.model.config import DeepSeekConfig
from finseek.model.flops import attention_parameters, flops_per_token, parameter_counts
from finseek.train.hardware import GIB, PRECISIONS, Hardware, Precision

RUNTIME_BYTES = 3 * GIB  # CUDA context, NCCL channels, cuBLAS workspaces
FRAGMENTATION = 0.08  # of the tensors, lost between the blocks of the caching allocator
IMBALANCE = 1.25  # rows of the busiest expert-parallel rank over the mean
SPLIT_COST = 0.95  # assumed: what each doubling of TP or CP leaves of the speed
SHARE_OF_PEAK = 0.28  # 276 of 989 TFLOP/s of an H100: DeepSeek-V3 pre-training on 1,024 GPUs, Megatron-Core


@dataclass(frozen=True)
class Layout:
    """How a model lies on GPUs.

    Attributes:
        gpus: all of them.
        tensor, pipeline, expert, context: parallel sizes; experts are shared inside d·c.
        sharding: ``fsdp`` spreads weights, gradients and optimiser over the replicas and gathers a layer at a time
            (FSDP2, ZeRO-3); ``optimizer`` spreads the optimiser alone (Megatron's distributed optimiser, ZeRO-1).
    """

    gpus: int
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    context: int = 1
    sharding: str = "fsdp"

    @property
    def data(self) -> int:
        """Replicas d."""
        return self.gpus // (self.tensor * self.pipeline * self.context)

    def __str__(self) -> str:
        sizes = {"TP": self.tensor, "PP": self.pipeline, "EP": self.expert, "CP": self.context}
        named = " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1)
        return f"{self.gpus} GPUs, {named or 'data parallel alone'}, {self.sharding}"


@dataclass(frozen=True)
class Workload:
    """What is trained.

    Attributes:
        config: the model.
        seq_length: tokens of a sequence.
        micro_batch_size: sequences of one pass.
        global_batch_size: sequences of one step.
        precision: bytes of a parameter.
        trainable: trainable parameters of an adapter; None trains every weight.
        recompute: keep each layer's input alone and compute the layer again in the backward pass.
        fused_loss: never hold all logits at once.
    """

    config: DeepSeekConfig
    seq_length: int
    micro_batch_size: int = 1
    global_batch_size: int = 128
    precision: Precision = PRECISIONS["mixed"]
    trainable: int | None = None
    recompute: bool = True
    fused_loss: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest GPU, by what they hold."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    exchange: float
    logits: float
    margin: float

    @property
    def total(self) -> float:
        """All of it."""
        return float(sum(getattr(self, part.name) for part in fields(self)))


@dataclass(frozen=True)
class Plan:
    """A layout and what it costs.

    Attributes:
        layout: the layout.
        memory: of its fullest GPU.
        fits: whether that is below the hardware's.
        tokens_per_second: of the whole job, estimated.
        price: dollars a million tokens, at the price given.
    """

    layout: Layout
    memory: Memory
    fits: bool
    tokens_per_second: float
    price: float


def divides(config: DeepSeekConfig, layout: Layout, hardware: Hardware) -> str | None:
    """Why a layout cannot be, or None: every size must divide what it splits."""
    t, p, e, c = layout.tensor, layout.pipeline, layout.expert, layout.context
    if layout.gpus % (t * p * c):
        return f"{layout.gpus} GPUs are no multiple of TP {t} × PP {p} × CP {c}"
    if (layout.data * c) % e:
        return f"EP {e} does not divide the {layout.data * c} ranks that hold the same layers"
    if e > 1 and config.n_routed_experts % e:
        return f"EP {e} does not divide {config.n_routed_experts} experts"
    if config.num_attention_heads % t:
        return f"TP {t} does not divide {config.num_attention_heads} heads"
    if t > hardware.per_node:
        return f"TP {t} leaves the node of {hardware.per_node} GPUs"
    if p > config.num_hidden_layers:
        return f"PP {p} exceeds {config.num_hidden_layers} layers"
    return None


def layer_activations(config: DeepSeekConfig, mixed: bool, precision: Precision) -> tuple[float, float]:
    """Bytes a token that one layer keeps for its backward pass: (split by tensor parallelism, of the experts)."""
    D, H, R = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    n, r, v, Q = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim, config.q_lora_rank or 0
    attention = 2 * D + 2 * Q + 3 * R + 2 * r + 2 * H * (n + r) + H * (n + v) + 2 * H * v
    dense_width = config.n_shared_experts * config.moe_intermediate_size if mixed else config.intermediate_size
    feed_forward = 2 * D + 4 * dense_width
    routed = config.num_experts_per_tok * (2 * D + 3 * config.moe_intermediate_size) if mixed else 0
    router = 4 * (D + 4 * config.n_routed_experts) if mixed else 0
    return (attention + feed_forward) * precision.activation + router, routed * precision.activation


def memory(work: Workload, layout: Layout) -> Memory:
    """Bytes on the fullest GPU: of the first pipeline stage (most passes in flight) or the last (logits)."""
    config, precision = work.config, work.precision
    counts = parameter_counts(config)
    L, t, p, e, c = config.num_hidden_layers, layout.tensor, layout.pipeline, layout.expert, layout.context
    stage_layers = ceil(L / p)
    share = stage_layers / L
    ends = max(counts.embedding, counts.head) if p > 1 else counts.embedding + counts.head
    plain = ((counts.total - counts.routed - counts.embedding - counts.head) * share + ends) / t
    routed = counts.routed * share / (t * e)
    plain_ranks, routed_ranks = layout.data * c, max(layout.data * c // e, 1)

    spread = layout.sharding == "fsdp"
    held = plain / (plain_ranks if spread else 1) + routed / (routed_ranks if spread else 1)
    trained = plain / plain_ranks + routed / routed_ranks  # what the optimiser of this GPU steps
    if work.trainable is None:
        gradients, stepped = held, trained
    else:
        gradients = stepped = work.trainable * share / t / (plain_ranks if spread else 1)
    gathered = 0.0
    if spread and plain_ranks > 1:
        block = attention_parameters(config) / t
        experts = counts.routed / max(_mixed_layers(config), 1) / (t * e) if routed_ranks > 1 else 0
        gathered = 2 * (block + experts) * precision.weight  # the layer at work and the one that is fetched meanwhile

    s = work.micro_batch_size * work.seq_length / c
    each = [layer_activations(config, config.is_moe_layer(layer), precision) for layer in range(L)]
    fullest = max(common / t + experts / t for common, experts in each) * s
    in_flight = p
    if work.recompute:
        kept = s * config.hidden_size * precision.activation / t * stage_layers * in_flight + fullest
    else:
        kept = sum(common / t + experts / t for common, experts in each) / L * stage_layers * s * in_flight
    sent = config.num_experts_per_tok * config.hidden_size * precision.activation * s / t
    exchange = 2 * IMBALANCE * sent if config.is_moe and e > 1 else 0.0
    logits = (
        0.0 if work.fused_loss else s * config.vocab_size / t * (precision.activation + 8)
    )  # and FP32 copy, gradient
    if p > 1:  # the last stage holds the logits and one pass, the first p passes: never both
        excess = kept * (in_flight - 1) / in_flight
        logits = max(logits - excess, 0.0)
    parts = {
        "weights": held * precision.weight,
        "gradients": gradients * precision.gradient,
        "optimizer": stepped * precision.optimizer,
        "gathered": gathered,
        "activations": kept,
        "exchange": exchange,
        "logits": logits,
    }
    return Memory(**parts, margin=FRAGMENTATION * sum(parts.values()) + RUNTIME_BYTES)


def _mixed_layers(config: DeepSeekConfig) -> int:
    return sum(config.is_moe_layer(layer) for layer in range(config.num_hidden_layers))


def tokens_per_second(
    work: Workload, layout: Layout, hardware: Hardware, share_of_peak: float = SHARE_OF_PEAK
) -> float:
    """Tokens of the whole job a second: GPUs · share of peak · peak / operations, less the pipeline's bubble.

    An adapter spares the weight gradients (a third). A pipeline of p stages and m passes works m / (m + p − 1) of the
    time (arXiv 1811.06965); each doubling of TP or CP costs 5 % (assumed). Recomputation is in the
    published share of peak.
    """
    operations = flops_per_token(work.config, work.seq_length) * (1 if work.trainable is None else 2 / 3)
    passes = max(work.global_batch_size // (work.micro_batch_size * layout.data), 1)
    bubble = passes / (passes + layout.pipeline - 1)
    idle = min(work.global_batch_size / (work.micro_batch_size * layout.data), 1.0)
    split = SPLIT_COST ** log2(layout.tensor * layout.context)
    speed = layout.gpus * hardware.tflops * 1e12 * share_of_peak * bubble * idle * split
    return float(speed / operations)


def plan(work: Workload, layout: Layout, hardware: Hardware, price: float | None = None) -> Plan:
    """What one layout takes.

    Raises:
        ConfigError: if its sizes do not divide what they split.
    """
    obstacle = divides(work.config, layout, hardware)
    if obstacle:
        raise ConfigError(f"parallel: {obstacle}")
    used = memory(work, layout)
    speed = tokens_per_second(work, layout, hardware)
    hourly = hardware.price if price is None else price
    return Plan(layout, used, used.total <= hardware.memory, speed, hourly * layout.gpus / 3600 / speed * 1e6)


def layouts(config: DeepSeekConfig, hardware: Hardware, gpus: int) -> Iterator[Layout]:
    """Every layout of so many GPUs whose sizes divide."""
    powers = [2**k for k in range(11)]
    pipelines = sorted({*powers, 3, 5, 6, 10})
    for t in powers:
        for p in pipelines:
            for e in powers if config.is_moe else [1]:
                for c in powers:
                    for sharding in ("fsdp", "optimizer"):
                        layout = Layout(gpus, t, p, e, c, sharding)
                        if t * p * c <= gpus and divides(config, layout, hardware) is None:
                            yield layout


def cheapest(
    work: Workload, hardware: Hardware, gpus: int | None = None, price: float | None = None, limit: int = 4096
) -> Plan | None:
    """The plan that fits with the fewest GPUs, the fastest of those; None if nothing does.

    Args:
        work: what is trained.
        hardware: on what.
        gpus: exactly so many; None looks for the smallest number.
        price: dollars of a GPU hour.
        limit: most GPUs to look at.
    """
    node = hardware.per_node
    numbers = [gpus] if gpus else [*(2**k for k in range(3) if 2**k < node), *range(node, 16 * node + 1, node)]
    if not gpus:
        numbers += [count for k in range(1, 8) if (count := 16 * node * 2**k) <= limit]
    for count in numbers:
        fitting = [
            found
            for layout in layouts(work.config, hardware, count)
            if (found := plan(work, layout, hardware, price)).fits
        ]
        if fitting:
            return max(fitting, key=lambda found: (found.tokens_per_second, found.layout.sharding, -found.memory.total))
    return None


def refusal(work: Workload, layout: Layout, hardware: Hardware) -> str:
    """Why a layout does not fit, and what would: one line."""
    used = memory(work, layout)
    parts = {part.name: getattr(used, part.name) for part in fields(used)}
    largest = max(parts, key=lambda name: parts[name])
    counts = parameter_counts(work.config)
    instead = cheapest(work, hardware)
    remedy = f"fits on {instead.layout}" if instead else f"fits on no layout of {hardware.name} that was looked at"
    return (
        f"{counts.total / 1e9:.0f} B parameters on {layout} need {used.total / GIB:.0f} GiB a GPU, {hardware.name} has"
        f" {hardware.memory / GIB:.0f}; the largest part is {largest} ({parts[largest] / GIB:.0f} GiB); it {remedy}"
    )


def adapter_parameters(config: DeepSeekConfig, rank: int, experts: bool = False) -> int:
    """Parameters of LoRA of a rank on the five attention projections and, with ``experts``, on every expert."""
    D, H, R = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    n, r, v, Q = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim, config.q_lora_rank
    query = D + Q + Q + H * (n + r) if Q else D + H * (n + r)
    attention = query + D + R + r + R + H * (n + v) + H * v + D
    mixture = 3 * (D + config.moe_intermediate_size) * (config.n_routed_experts + config.n_shared_experts)
    return rank * (config.num_hidden_layers * attention + (_mixed_layers(config) * mixture if experts else 0))
