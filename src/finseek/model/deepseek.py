"""DeepSeek-V3 (arXiv 2412.19437): trunk, head, losses.

B batch   T tokens   D hidden   V vocabulary   L layers
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finseek.core.errors import InputError
from finseek.model.block import DeepSeekBlock
from finseek.model.cache import Latents
from finseek.model.config import DeepSeekConfig
from finseek.model.context import Context, check_tokens, context_of
from finseek.model.experts import RoutedExperts
from finseek.model.generate import generate
from finseek.model.loss import IGNORED, Targets, next_token_loss
from finseek.model.mtp import MTPBlock, mtp_loss
from finseek.model.norm import RMSNorm
from finseek.model.rope import phasors
from finseek.model.router import Router
from finseek.model.state_dict import load_weights, save_weights


@dataclass
class Output:
    """What a forward pass gives.

    Attributes:
        logits: (B, T, V), or None where they were not asked for.
        loss: the scalar to minimise; in training with MTP and balance losses added; None without labels.
        token_loss: −log p of each label, fp32 (B, T), detached; 0 at position 0 and where the label is −100.
        mtp_loss: mean over the MTP depths, before its weight; None where there is none.
        balance_loss: sum over layers, mean over rows by their labels, before α; None outside training or for α = 0.
    """

    logits: Tensor | None
    loss: Tensor | None = None
    token_loss: Tensor | None = None
    mtp_loss: Tensor | None = None
    balance_loss: Tensor | None = None


class DeepSeekModel(nn.Module):
    """The trunk: embedding, L blocks, final norm; the MTP modules lie behind the blocks and run apart."""

    def __init__(self, config: DeepSeekConfig) -> None:
        super().__init__()
        L, depths = config.num_hidden_layers, config.num_nextn_predict_layers
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        blocks = [DeepSeekBlock(config, layer) for layer in range(L)]
        self.layers = nn.ModuleList(blocks + [MTPBlock(config, L + depth) for depth in range(depths)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, input_ids: Tensor, context: Context, cache: Latents | None = None, last: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Tokens (B, T) -> h (B, T, D) after the final norm, and the balance losses of the layers.

        Where the `last` token's h (B, 1, D) is all that is wanted, the last layer runs for it alone: decoding only.
        """
        L = self.config.num_hidden_layers
        h = self.embed_tokens(input_ids)
        phasor = phasors(self.config, context.positions, h.dtype)
        balances = []
        for layer, block in enumerate(self.layers[:L]):
            latents = cache.layer(layer) if cache else None
            h, balance = block(h, phasor, context.mask, context.counted, latents, last and layer == L - 1)
            balances += [] if balance is None else [balance]
        return self.norm(h), balances


class DeepSeekV3(nn.Module):
    """The causal language model.

    Args:
        config: its shape.
        seed: of the initial weights, normal with `initializer_range`.
    """

    def __init__(self, config: DeepSeekConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.model = DeepSeekModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all weights anew: matrices normal(0, initializer_range), norms 1, biases 0."""
        device = self.lm_head.weight.device
        if device.type == "meta":
            return
        generator = torch.Generator(device).manual_seed(seed)
        for module in self.modules():
            drawn = isinstance(module, nn.Linear | nn.Embedding | Router | RoutedExperts)
            for name, parameter in module.named_parameters(recurse=False):
                if drawn and name != "bias":
                    parameter.normal_(0.0, self.config.initializer_range, generator=generator)
                else:
                    parameter.fill_(0.0 if name == "bias" else 1.0)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        loss_weights: Tensor | None = None,
        loss_denominator: Tensor | float | None = None,
        return_logits: bool = True,
    ) -> Output:
        """Run the model.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 0 for padding on either side.
            labels: (B, T), the input ids again, −100 where no loss is wanted; shifted inside.
            position_ids: (B, T); default: counted from each row's first token, or each segment's.
            segment_ids: (B, T), equal within a document of a packed row; documents don't see each other, and the
                first token of one is not predicted from the one before.
            loss_weights: (B, T), weight of each label in the mean; default 1.
            loss_denominator: what the weighted sum is divided by; default: the sum of the weights. Give that of the
                global batch when gradients are accumulated or averaged.
            return_logits: False spares the (B, T, V) logits in training.

        Raises:
            InputError: shapes that differ, or values outside the vocabulary (looked at on a CPU alone).
        """
        check_tokens("input_ids", input_ids, self.config.vocab_size)
        for name, given in (("attention_mask", attention_mask), ("labels", labels), ("position_ids", position_ids),
                            ("segment_ids", segment_ids), ("loss_weights", loss_weights)):  # fmt: skip
            if given is not None and given.shape != input_ids.shape:
                raise InputError(
                    f"{name}: shape {tuple(given.shape)} must equal that of input_ids {tuple(input_ids.shape)}"
                )
        if labels is not None:
            check_tokens("labels", labels, self.config.vocab_size, also=IGNORED)
        context = context_of(input_ids, attention_mask, segment_ids, position_ids)
        h, balances = self.model(input_ids, context)
        output = Output(self.lm_head(h) if return_logits or labels is None else None)
        if labels is None:
            return output
        targets = Targets(labels, segment_ids, loss_weights, loss_denominator)
        output.loss, output.token_loss, share = next_token_loss(h, self.lm_head, targets, 1, output.logits)
        if self.training and self.config.num_nextn_predict_layers:
            output.mtp_loss, more = mtp_loss(self, h, input_ids, context, targets)
            output.loss = output.loss + self.config.mtp_loss_weight * output.mtp_loss
            balances += more
        if balances:
            output.balance_loss = (torch.stack(balances).sum(dim=0) * share).sum()
            output.loss = output.loss + self.config.aux_loss_alpha * output.balance_loss
        return output

    def mtp_blocks(self) -> nn.ModuleList:
        """The MTP modules by depth."""
        return self.model.layers[self.config.num_hidden_layers :]

    generate = generate

    def routers(self) -> dict[int, Router]:
        """The routers by layer."""
        return {i: block.mlp.gate for i, block in enumerate(self.model.layers) if block.is_moe}

    def update_router_bias(self, gamma: float) -> None:
        """After an optimiser step: move each router's bias by γ against its load, and start to count anew."""
        for router in self.routers().values():
            router.update_bias(gamma)

    def router_load(self) -> dict[int, Tensor]:
        """Tokens each expert got in training since the last bias update, by layer: fp32 (E,)."""
        return {layer: router.load.clone() for layer, router in self.routers().items()}

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype | None = None, **overrides: Any) -> DeepSeekV3:
        """Load a checkpoint in the Hugging Face layout.

        Args:
            folder: holds config.json and model.safetensors, or shards and their index.
            dtype: of the weights (default: as stored); the router bias is fp32 always.
            overrides: config values to replace; `num_nextn_predict_layers=0` leaves the MTP modules out.

        Raises:
            ConfigError, InputError: the config, or weights that are missing, superfluous, misshapen or still FP8.
        """
        config = DeepSeekConfig.from_json(folder).with_values(**overrides)
        with torch.device("meta"):
            model = cls(config)
        load_weights(model, Path(folder), dtype)
        return model.eval()

    def save_pretrained(self, folder: str | Path, max_shard_bytes: int = 5 * 10**9) -> None:
        """Write config.json and the weights in the Hugging Face layout; other files of the folder stay."""
        save_weights(self, Path(folder), max_shard_bytes)
