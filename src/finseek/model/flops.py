"""Parameter counts and floating-point operations of a config, by formula; no weight is made.

D hidden   H heads   R latent rank   n, r, v widths of a head   I expert width   E experts   K chosen   V vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass

from finseek.model.config import DeepSeekConfig


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of weights; `total` and `active` are of the model without its MTP modules, as the field quotes them.

    Attributes:
        embedding: the table of token vectors.
        head: the projection to the vocabulary (0 where it is the embedding).
        attention: all layers.
        dense: feed-forward of the dense layers.
        routed: all routed experts.
        shared: shared experts.
        router: gates, without their biases, which are buffers.
        norms: gains of all norms outside the attention.
        mtp: MTP modules without the embedding and head that they share.
        chosen: the routed experts that one token visits.
    """

    embedding: int
    head: int
    attention: int
    dense: int
    routed: int
    shared: int
    router: int
    norms: int
    mtp: int
    chosen: int

    @property
    def total(self) -> int:
        """Every weight of the trunk, embedding and head."""
        parts = (
            self.embedding,
            self.head,
            self.attention,
            self.dense,
            self.routed,
            self.shared,
            self.router,
            self.norms,
        )
        return sum(parts)

    @property
    def active(self) -> int:
        """Weights that take part in one token's prediction; the embedding is a look-up and does not count."""
        head = self.head or self.embedding
        return head + self.attention + self.dense + self.chosen + self.shared + self.router + self.norms


def attention_parameters(config: DeepSeekConfig) -> int:
    """Weights of one attention, its latent norms included."""
    D, H, R, Q = config.hidden_size, config.num_attention_heads, config.kv_lora_rank, config.q_lora_rank
    n, r, v = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
    query = D * H * (n + r) if Q is None else D * Q + Q + Q * H * (n + r)
    biases = (Q or 0) + R + r + D if config.attention_bias else 0
    return query + D * (R + r) + R + R * H * (n + v) + H * v * D + biases


def parameter_counts(config: DeepSeekConfig) -> ParameterCounts:
    """Count the weights of a config."""
    D, L, V = config.hidden_size, config.num_hidden_layers, config.vocab_size
    E, K = config.n_routed_experts, config.num_experts_per_tok
    mixed = sum(config.is_moe_layer(layer) for layer in range(L))
    expert = 3 * D * config.moe_intermediate_size
    attention, dense = attention_parameters(config), 3 * D * config.intermediate_size
    mixture = (E + config.n_shared_experts) * expert + E * D
    mtp = sum(
        attention + (mixture if config.is_moe_layer(L + depth) else dense) + 2 * D * D + 5 * D
        for depth in range(config.num_nextn_predict_layers)
    )
    return ParameterCounts(
        embedding=V * D,
        head=0 if config.tie_word_embeddings else V * D,
        attention=L * attention,
        dense=(L - mixed) * dense,
        routed=mixed * E * expert,
        shared=mixed * config.n_shared_experts * expert,
        router=mixed * E * D,
        norms=(2 * L + 1) * D,
        mtp=mtp,
        chosen=mixed * K * expert,
    )


def flops_per_token(config: DeepSeekConfig, seq_length: int, training: bool = True) -> float:
    """Floating-point operations of one token at the mean causal context of `seq_length`, in the expanded form.

    Two for each active weight and for each product of scores and values; a training step is three forward passes
    (arXiv 2001.08361, section 2.1). Recomputation and MTP are not counted.
    """
    H, widths = config.num_attention_heads, config.qk_head_dim + config.v_head_dim
    context = (seq_length + 1) / 2
    forward = 2 * parameter_counts(config).active + 2 * config.num_hidden_layers * H * widths * context
    return forward * (3 if training else 1)


def latent_cache_bytes(config: DeepSeekConfig, tokens: int, bytes_per_number: int = 2) -> int:
    """Memory of the decoding cache of `tokens` tokens: R + r numbers a token and layer."""
    return tokens * config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim) * bytes_per_number
