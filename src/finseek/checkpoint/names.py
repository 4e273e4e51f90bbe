"""One table of names: Hugging Face, finseek in memory, NeMo AutoModel, Megatron-Core.

A row is one weight of the architecture. Hugging Face's name is the key, its shape the reference; a `Place` says where
another layout keeps it: under which name, at which index of a stack of experts, as which part of a fused matrix, and
whether transposed. None: that layout has no such weight.

Symbols of shapes: V vocabulary, D hidden, F dense and I expert intermediate, E routed and S shared experts, H heads,
Q query rank, C latent rank, R rotary, N not rotary, U value width of a head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from finseek.model import DeepSeekConfig

LAYOUTS = ("finseek", "automodel", "megatron")


@dataclass(frozen=True)
class Place:
    """Where a layout keeps a weight.

    Attributes:
        name: with `{layer}` (in Megatron's MTP: of the MTP stack) and `{expert}`, if it depends on them.
        stacked: the experts are one tensor, first axis.
        part: of how many equal parts of a fused matrix this is which, along the outputs; None: the whole.
        transposed: kept as (in, out).
    """

    name: str
    stacked: bool = False
    part: tuple[int, int] | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Row:
    """One weight.

    Attributes:
        hf: Hugging Face's name.
        shape: products of symbols, by axis.
        where: the key of `WHERE` that says which layers have it.
        fp8: whether DeepSeek's FP8 checkpoints hold it in FP8.
        finseek, automodel, megatron: its places.
    """

    hf: str
    shape: tuple[str, ...]
    where: str
    fp8: bool
    finseek: Place | None
    automodel: Place | None
    megatron: Place | None


def _row(hf: str, shape: str, where: str, megatron: str | None, fp8: bool = False, part: int | None = None) -> Row:
    """A row whose weight has Hugging Face's name in finseek and AutoModel, and may be half of a matrix in Megatron."""
    fused = None if part is None else (part, 2)
    there = Place(megatron, part=fused) if megatron else None
    return Row(hf, tuple(shape.split()), where, fp8, Place(hf), Place(hf), there)


def _expert(projection: str, shape: str, part: int | None) -> Row:
    """A row of a routed expert: stacked in finseek, stacked and transposed in AutoModel, numbered in Megatron."""
    hf = f"{LAYER}.mlp.experts.{{expert}}.{projection}.weight"
    fused = None if part is None else (part, 2)
    ours, theirs, fc = (
        ("down_proj", "down_projs", "fc2") if fused is None else ("gate_up_proj", "gate_and_up_projs", "fc1")
    )
    return Row(
        hf, tuple(shape.split()), "moe", True,
        Place(f"{LAYER}.mlp.experts.{ours}", stacked=True, part=fused),
        Place(f"{LAYER}.mlp.experts.{theirs}", stacked=True, part=fused, transposed=True),
        Place(f"{DECODER}.mlp.experts.linear_{fc}.weight{{expert}}", part=fused),
    )  # fmt: skip


LAYER, DECODER = "model.layers.{layer}", "decoder.layers.{layer}"
A, M = f"{LAYER}.self_attn", f"{DECODER}.self_attention"
TABLE: tuple[Row, ...] = (
    _row("model.embed_tokens.weight", "V D", "model", "embedding.word_embeddings.weight"),
    _row("model.norm.weight", "D", "model", "decoder.final_layernorm.weight"),
    _row("lm_head.weight", "V D", "untied", "output_layer.weight"),
    _row(f"{LAYER}.input_layernorm.weight", "D", "layer", f"{DECODER}.input_layernorm.weight"),
    _row(f"{A}.q_proj.weight", "H*(N+R) D", "q", f"{M}.linear_q_proj.weight", fp8=True),
    _row(f"{A}.q_a_proj.weight", "Q D", "q_lora", f"{M}.linear_q_down_proj.weight", fp8=True),
    _row(f"{A}.q_a_proj.bias", "Q", "q_lora_bias", None),
    _row(f"{A}.q_a_layernorm.weight", "Q", "q_lora", f"{M}.linear_q_up_proj.layer_norm_weight"),
    _row(f"{A}.q_b_proj.weight", "H*(N+R) Q", "q_lora", f"{M}.linear_q_up_proj.weight", fp8=True),
    _row(f"{A}.kv_a_proj_with_mqa.weight", "C+R D", "layer", f"{M}.linear_kv_down_proj.weight", fp8=True),
    _row(f"{A}.kv_a_proj_with_mqa.bias", "C+R", "attention_bias", None),
    _row(f"{A}.kv_a_layernorm.weight", "C", "layer", f"{M}.linear_kv_up_proj.layer_norm_weight"),
    _row(f"{A}.kv_b_proj.weight", "H*(N+U) C", "layer", f"{M}.linear_kv_up_proj.weight", fp8=True),
    _row(f"{A}.o_proj.weight", "D H*U", "layer", f"{M}.linear_proj.weight", fp8=True),
    _row(f"{A}.o_proj.bias", "D", "attention_bias", None),
    _row(f"{LAYER}.post_attention_layernorm.weight", "D", "dense", f"{DECODER}.mlp.linear_fc1.layer_norm_weight"),
    _row(f"{LAYER}.mlp.gate_proj.weight", "F D", "dense", f"{DECODER}.mlp.linear_fc1.weight", True, part=0),
    _row(f"{LAYER}.mlp.up_proj.weight", "F D", "dense", f"{DECODER}.mlp.linear_fc1.weight", True, part=1),
    _row(f"{LAYER}.mlp.down_proj.weight", "D F", "dense", f"{DECODER}.mlp.linear_fc2.weight", True),
    _row(f"{LAYER}.post_attention_layernorm.weight", "D", "moe", f"{DECODER}.pre_mlp_layernorm.weight"),
    _row(f"{LAYER}.mlp.gate.weight", "E D", "moe", f"{DECODER}.mlp.router.weight"),
    _row(f"{LAYER}.mlp.gate.e_score_correction_bias", "E", "router_bias", f"{DECODER}.mlp.router.expert_bias"),
    _expert("gate_proj", "I D", 0),
    _expert("up_proj", "I D", 1),
    _expert("down_proj", "D I", None),
    _row(f"{LAYER}.mlp.shared_experts.gate_proj.weight", "S*I D", "shared", f"{DECODER}.mlp.shared_experts.linear_fc1.weight", True, part=0),  # noqa: E501
    _row(f"{LAYER}.mlp.shared_experts.up_proj.weight", "S*I D", "shared", f"{DECODER}.mlp.shared_experts.linear_fc1.weight", True, part=1),  # noqa: E501
    _row(f"{LAYER}.mlp.shared_experts.down_proj.weight", "D S*I", "shared", f"{DECODER}.mlp.shared_experts.linear_fc2.weight", True),  # noqa: E501
    _row(f"{LAYER}.enorm.weight", "D", "mtp", "mtp.layers.{layer}.enorm.weight"),
    _row(f"{LAYER}.hnorm.weight", "D", "mtp", "mtp.layers.{layer}.hnorm.weight"),
    _row(f"{LAYER}.eh_proj.weight", "D 2*D", "mtp", "mtp.layers.{layer}.eh_proj.weight"),
    _row(f"{LAYER}.shared_head.norm.weight", "D", "mtp", "mtp.layers.{layer}.final_layernorm.weight"),
)  # fmt: skip
# Stored in the files of an MTP layer, owned by the trunk: nowhere else than in Hugging Face's layout.
COPIES: tuple[tuple[Row, str], ...] = tuple(
    (Row(f"{LAYER}.{name}", ("V", "D"), "mtp", False, None, None, None), source)
    for name, source in (
        ("embed_tokens.weight", "model.embed_tokens.weight"),
        ("shared_head.head.weight", "lm_head.weight"),
    )
)
# Tensors of old exporters that hold nothing a model needs.
IGNORED = re.compile(r"\.rotary_emb\.inv_freq$")


def _present(config: DeepSeekConfig, where: str, layer: int) -> bool:
    """Whether layer `layer` has the rows marked `where`; -1 stands for no layer."""
    moe, lora = layer >= 0 and config.is_moe_layer(layer), config.q_lora_rank is not None
    present: dict[str, bool] = {
        "model": layer < 0,
        "untied": layer < 0 and not config.tie_word_embeddings,
        "layer": layer >= 0,
        "attention_bias": layer >= 0 and config.attention_bias,
        "q": layer >= 0 and not lora,
        "q_lora": layer >= 0 and lora,
        "q_lora_bias": layer >= 0 and lora and config.attention_bias,
        "dense": layer >= 0 and not moe,
        "moe": moe,
        "router_bias": moe and config.topk_method == "noaux_tc",
        "shared": moe and config.n_shared_experts > 0,
        "mtp": layer >= config.num_hidden_layers,
    }
    return present[where]


class Weight(NamedTuple):
    """A row at its layer and expert: one tensor of a Hugging Face checkpoint."""

    row: Row
    layer: int
    expert: int
    shape: tuple[int, ...]
    n_layers: int

    @property
    def name(self) -> str:
        """Hugging Face's name."""
        return self.row.hf.format(layer=self.layer, expert=self.expert)

    def place(self, layout: str) -> Place | None:
        """The place in a layout, with its name filled in.

        Megatron counts MTP layers on their own and keeps their block in `mtp_model_layer`; AutoModel 0.7 has no MTP.
        """
        place: Place | None = getattr(self.row, layout)
        mtp = self.layer >= self.n_layers
        if place is None or (mtp and layout == "automodel"):
            return None
        name, layer = place.name, self.layer
        if mtp and layout == "megatron":
            name = name.replace(DECODER, "mtp.layers.{layer}.mtp_model_layer")
            layer = self.layer - self.n_layers
        return Place(name.format(layer=layer, expert=self.expert), place.stacked, place.part, place.transposed)


def weights_of(config: DeepSeekConfig, mtp: bool = True) -> Iterator[Weight]:
    """Every tensor that a Hugging Face checkpoint of this config holds, but for the copies in MTP layers."""
    yield from _weights(config, TABLE, mtp)


def copies_of(config: DeepSeekConfig, mtp: bool = True) -> dict[str, tuple[Weight, str]]:
    """The copies that MTP layers may hold of the trunk's embedding and head: name to weight and source."""
    rows = {row: source for row, source in COPIES}
    return {weight.name: (weight, rows[weight.row]) for weight in _weights(config, tuple(rows), mtp)}


def _weights(config: DeepSeekConfig, rows: tuple[Row, ...], mtp: bool) -> Iterator[Weight]:
    L = config.num_hidden_layers
    sizes = {
        "V": config.vocab_size, "D": config.hidden_size, "F": config.intermediate_size,
        "I": config.moe_intermediate_size, "E": config.n_routed_experts, "S": config.n_shared_experts,
        "H": config.num_attention_heads, "Q": config.q_lora_rank or 0, "C": config.kv_lora_rank,
        "R": config.qk_rope_head_dim, "N": config.qk_nope_head_dim, "U": config.v_head_dim,
    }  # fmt: skip
    shapes = {row: tuple(_size(axis, sizes) for axis in row.shape) for row in rows}
    for layer in range(-1, L + config.num_nextn_predict_layers * mtp):
        for row in rows:
            if not _present(config, row.where, layer):
                continue
            for expert in range(config.n_routed_experts if "{expert}" in row.hf else 1):
                yield Weight(row, layer, expert, shapes[row], L)


def _size(axis: str, sizes: Mapping[str, int]) -> int:
    """The value of a product of symbols and sums in brackets, such as `H*(N+R)`."""
    value = 1
    for factor in axis.split("*"):
        value *= sum(sizes[term] if term in sizes else int(term) for term in factor.strip("()").split("+"))
    return value
