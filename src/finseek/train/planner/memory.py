"""How much memory a training layout takes on its fullest GPU.

D hidden   H heads   Q, R ranks of query and latent   n, r, v widths of a head   I expert width   E experts   K chosen
V vocabulary   L layers   s tokens of a micro batch on one GPU   t, p, e, c sizes of tensor, pipeline, expert, context
parallelism   d = GPUs / (t p c) replicas

It is counted, not fitted: weights, gradients and optimiser of the shard; the weights that one layer gathers under
FSDP; what the backward pass keeps; the logits; and a margin for the allocator.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

from finseek.model.config import DeepSeekConfig
from finseek.model.flops import ParameterCounts, attention_parameters, parameter_counts
from finseek.train.planner.hardware import GIB, QUANTIZED, Precision
from finseek.train.planner.workload import Layout, Workload

RUNTIME_BYTES = 3 * GIB  # CUDA context, NCCL channels, cuBLAS workspaces
FRAGMENTATION = 0.08  # of the tensors, lost between the blocks of the caching allocator
IMBALANCE = 1.25  # rows of the busiest expert-parallel rank over the mean
CHUNK = 2**28  # logits that the fused loss holds at once on a GPU, as `model.loss` has it


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest GPU, by what they hold.

    Attributes:
        weights: of this GPU's shard.
        gradients: of what is trained.
        optimizer: moments, and a master copy where there is one.
        gathered: whole weights of the layer at work and of the next one (FSDP), or copies in the product's precision.
        activations: what the backward pass keeps.
        exchange: buffers of the all-to-all.
        logits: and what their loss needs.
        margin: fragmentation and the runtime's own.
    """

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


def activations_by_layer(work: Workload, layout: Layout) -> list[float]:
    """Bytes that each layer keeps of one pass while it is computed forward and back, on the GPU that holds it."""
    s = work.micro_batch_size * work.seq_length / layout.context
    each = (
        layer_activations(work.config, work.config.is_moe_layer(layer), work.precision) for layer in range(work.layers)
    )
    t, te = layout.tensor, layout.tensor if work.tensor_splits_experts else 1
    return [(common / t + experts / te) * s for common, experts in each]


def memory(work: Workload, layout: Layout) -> Memory:
    """Bytes on the fullest GPU: of the first pipeline stage (most passes in flight) or the last (logits)."""
    config, precision = work.config, work.precision
    t, p, e, c = layout.tensor, layout.pipeline, layout.expert, layout.context
    te = t if work.tensor_splits_experts else 1
    counts = parameter_counts(config)
    share = ceil(work.layers / p) / work.layers
    ends = max(counts.embedding, counts.head) if p > 1 else counts.embedding + counts.head
    routed_all, layers_plain = _layer_weights(work, counts)
    plain, routed = (layers_plain * share + ends) / t, routed_all * share / (te * e)
    plain_ranks, routed_ranks = layout.data * c, max(layout.data * c // e, 1)

    spread, steps_spread = layout.sharding == "fsdp", layout.sharding != "none"
    held = plain / (plain_ranks if spread else 1) + routed / (routed_ranks if spread else 1)
    stepped = plain / (plain_ranks if steps_spread else 1) + routed / (routed_ranks if steps_spread else 1)
    weights = held * precision.weight
    if work.quantized:
        frozen_linear = layers_plain * share / t / (plain_ranks if spread else 1)
        weights -= frozen_linear * (precision.weight - QUANTIZED)
    gradients = held
    if work.trainable is not None:
        adapter = work.trainable * share / t
        gradients = adapter / (plain_ranks if spread else 1)
        stepped = adapter / (plain_ranks if steps_spread else 1)
        weights += gradients * precision.trained

    block = attention_parameters(config) / t
    experts = routed_all / max(work.mixed_layers, 1) / (te * e)
    gathered = 0.0
    if spread and plain_ranks > 1:  # the layer at work and the one that is fetched meanwhile
        gathered = 2 * (block + (experts if routed_ranks > 1 else 0)) * precision.weight
    gathered += (block + experts) * precision.computed

    s = work.micro_batch_size * work.seq_length / c
    each = activations_by_layer(work, layout)
    passes = max(work.global_batch_size // (work.micro_batch_size * layout.data), 1)
    in_flight = min(p, passes)
    if work.recompute:
        inputs = s * config.hidden_size * precision.activation * ceil(work.layers / p)
        kept = inputs * in_flight + max(each)
    else:
        kept = sum(each) * share * in_flight
    sent = config.num_experts_per_tok * config.hidden_size * precision.activation * s
    exchange = 2 * IMBALANCE * sent if config.is_moe and e > 1 else 0.0
    logits = _logits(work, s, t)
    if p > 1:  # the last stage holds the logits and one pass, the first several passes: never both
        logits = max(logits - kept * (in_flight - 1) / in_flight, 0.0)
    parts = {
        "weights": weights,
        "gradients": gradients * precision.gradient,
        "optimizer": stepped * precision.optimizer,
        "gathered": gathered,
        "activations": kept,
        "exchange": exchange,
        "logits": logits,
    }
    return Memory(**parts, margin=FRAGMENTATION * sum(parts.values()) + RUNTIME_BYTES)


def _layer_weights(work: Workload, counts: ParameterCounts) -> tuple[float, float]:
    """Weights of all layers: (routed experts, everything else), without embedding and head."""
    config = work.config
    behind = config.num_nextn_predict_layers if work.mtp else 0
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    routed_behind = behind * config.n_routed_experts * expert
    plain = counts.total - counts.routed - counts.embedding - counts.head
    return counts.routed + routed_behind, plain + (counts.mtp - routed_behind if work.mtp else 0)


def _logits(work: Workload, s: float, t: int) -> float:
    """The logits with their FP32 copy and gradient; or a chunk of them, and the head's gradient in FP32."""
    D, V = work.config.hidden_size, work.config.vocab_size
    if work.fused_loss:
        return float(3 * 4 * min(CHUNK, s * V) + s * D * work.precision.activation + 4 * V * D)
    return s * V / t * (work.precision.activation + 8)
