"""What is trained, and how it lies on GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from finseek.model.config import DeepSeekConfig
from finseek.train.planner.hardware import PRECISIONS, Precision


@dataclass(frozen=True)
class Layout:
    """How a model lies on GPUs.

    Attributes:
        gpus: all of them.
        tensor, pipeline, expert, context: parallel sizes; experts are shared inside d·c.
        sharding: ``fsdp`` spreads weights, gradients and optimiser over the replicas and gathers a layer at a time
            (FSDP2, ZeRO-3); ``optimizer`` spreads the optimiser alone (Megatron's distributed optimiser, ZeRO-1);
            ``none`` nothing.
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
        return f"{self.gpus} GPU{'s' * (self.gpus > 1)}, {named or 'data parallel alone'}, sharding {self.sharding}"


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
        quantized: linear weights in 4 bits; the stacked routed experts stay as they are.
        mtp: the multi-token-prediction layers are trained too.
        tensor_splits_experts: tensor parallelism divides the routed experts as well.
        steps: of the whole training; None where it is not known.
    """

    config: DeepSeekConfig
    seq_length: int
    micro_batch_size: int = 1
    global_batch_size: int = 128
    precision: Precision = PRECISIONS["mixed"]
    trainable: int | None = None
    recompute: bool = True
    fused_loss: bool = False
    quantized: bool = False
    mtp: bool = False
    tensor_splits_experts: bool = True
    steps: int | None = None

    @property
    def layers(self) -> int:
        """Layers, those of multi-token prediction included where they are trained."""
        return self.config.num_hidden_layers + (self.config.num_nextn_predict_layers if self.mtp else 0)

    @property
    def mixed_layers(self) -> int:
        """Of these, those with routed experts."""
        return sum(self.config.is_moe_layer(layer) for layer in range(self.layers))


def adapter_parameters(config: DeepSeekConfig, rank: int, preset: str = "attention") -> int:
    """Parameters of LoRA of a rank: on the attention, ``attention+experts``, or ``all`` linear maps."""
    D, H, R = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    n, r, v, Q = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim, config.q_lora_rank
    width, mixed = config.moe_intermediate_size, sum(map(config.is_moe_layer, range(config.num_hidden_layers)))
    query = D + Q + Q + H * (n + r) if Q else D + H * (n + r)
    attention = config.num_hidden_layers * (query + D + R + r + R + H * (n + v) + H * v + D)
    routed = mixed * config.n_routed_experts * ((D + 2 * width) + (width + D))  # gate and up are one stacked weight
    shared = mixed * 3 * (D + config.n_shared_experts * width) if config.n_shared_experts else 0
    dense = (config.num_hidden_layers - mixed) * 3 * (D + config.intermediate_size)
    parts = {
        "attention": attention,
        "attention+experts": attention + routed,
        "all": attention + routed + shared + dense,
    }
    return rank * parts[preset]
