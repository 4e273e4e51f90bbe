"""The model as a Lightning module: one global batch in, one update of the optimiser out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor

from finseek.core.errors import ConfigError
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.samples import Encoder
from finseek.samples.templates import special_tokens
from finseek.train.data import Batch
from finseek.train.job import TrainJob
from finseek.train.options import TrainOptions
from finseek.train.schedule import learning_rate

IGNORED = -100


class TensorBatch(NamedTuple):
    """A :class:`finseek.train.data.Batch` of tensors; ``mask`` is None where no row is padded.

    ``labels`` are the input ids, −100 on padding.
    """

    input_ids: Tensor
    mask: Tensor | None
    labels: Tensor
    weight: Tensor
    action: Tensor


class StepBatch(NamedTuple):
    """The forward passes of one step.

    Attributes:
        step: from 0.
        micro: the passes.
        total_weight: sum of loss weights over the global batch, the denominator of the loss.
        tokens: tokens of the global batch without padding.
    """

    step: int
    micro: list[TensorBatch]
    total_weight: float
    tokens: int


def tensors(batch: Batch) -> TensorBatch:
    """The same batch in torch."""
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    return TensorBatch(
        ids,
        None if mask.all() else mask,
        ids.masked_fill(~mask, IGNORED),
        torch.from_numpy(batch.weight),
        torch.from_numpy(batch.action),
    )


class LanguageModule(lightning.LightningModule):
    """Causal language modelling with the losses and the router update of DeepSeek-V3 (arXiv 2412.19437).

    L = Σ w·nll / Σ w  +  λ · the same of the multi-token-prediction head  +  α · balance loss,
    and after each update: bias += γ · sign(mean load − load), per expert.
    """

    def __init__(self, model: DeepSeekV3, options: TrainOptions, total_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model.train()
        self.options = options
        self.total_steps = total_steps
        self.last: dict[str, Any] = {}
        self.optimizer = adamw(model, options)
        self.average = {name: value.clone() for name, value in model.state_dict().items()} if self._averages else None

    @property
    def _averages(self) -> bool:
        return self.options.average_decay > 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, made with the module so that a resumed state can be loaded before the loop starts."""
        return self.optimizer

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One update from one global batch; its figures are left in ``last``."""
        options = self.options
        optimizer: Any = self.optimizers()
        rate = learning_rate(
            batch.step, self.total_steps, options.learning_rate, options.warmup_steps, options.min_learning_rate_ratio
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for micro in batch.micro:
            loss, figures = self._loss(micro, batch.total_weight)
            self.manual_backward(loss)
            sums += figures
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.gradient_clip_val or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        load = self.model.router_load()
        self.model.update_router_bias(options.router_bias_update_rate)
        self._move_average(batch.step)
        self.last = dict(zip(("loss_sum", "action_sum", "action_count"), sums.tolist(), strict=True)) | {
            "loss_weight": batch.total_weight,
            "grad_norm": norm.item(),
            "learning_rate": rate,
            "router_load": [(counts / counts.sum()).tolist() for counts in load.values()],
        }

    def _loss(self, batch: TensorBatch, total_weight: float) -> tuple[Tensor, Tensor]:
        """This pass's share of the step's loss, and (sum of w·nll, sum of nll of action tokens, action tokens)."""
        out = self.model(
            batch.input_ids,
            batch.mask,
            batch.labels,
            loss_weights=batch.weight,
            loss_denominator=total_weight,
            return_logits=False,
        )
        nll = out.token_loss.double()
        return out.loss, torch.stack(
            [(nll * batch.weight).sum(), (nll * batch.action).sum(), batch.action.sum().double()]
        )

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def validation_sums(self, batch: TensorBatch) -> list[float]:
        """Σ w·nll, Σ w, Σ nll of action tokens, and their number, with the averaged weights."""
        batch = self.trainer.strategy.batch_to_device(batch)
        with self.trainer.precision_plugin.val_step_context():
            nll = self.model(batch.input_ids, batch.mask, batch.labels, return_logits=False).token_loss.double()
        terms = (nll * batch.weight, batch.weight, nll * batch.action, batch.action)
        return [float(term.sum(dtype=torch.float64)) for term in terms]

    @contextmanager
    def evaluating(self) -> Iterator[dict[str, Tensor]]:
        """In evaluation mode with the averaged weights; yields them."""
        trained = self.model.state_dict()
        if self.average is not None:
            trained = {name: value.clone() for name, value in trained.items()}
            self.model.load_state_dict(self.average)
        self.model.eval()
        try:
            yield self.model.state_dict()
        finally:
            self.model.train()
            if self.average is not None:
                self.model.load_state_dict(trained)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _move_average(self, step: int) -> None:
        """Average += (1 − d) (weights − average), with d small at first so that the random start is forgotten."""
        if self.average is None:
            return
        decay = min(self.options.average_decay, (1 + step) / (10 + step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def training_state(self) -> dict[str, Any]:
        """Everything that the next step depends on besides its batch."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "rng": torch.get_rng_state(),
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`training_state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        torch.set_rng_state(state["rng"])


def adamw(model: DeepSeekV3, options: TrainOptions) -> torch.optim.AdamW:
    """The optimiser of the trainable parameters; matrices decay, vectors do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=options.betas)


def first_model(job: TrainJob, encoder: Encoder) -> DeepSeekV3:
    """The model before the first step: random weights of the job's seed, or a checkpoint's in float32.

    Raises:
        ConfigError: if the checkpoint's vocabulary is not the tokenizer's, or ``train.seq_length`` exceeds its context.
    """
    losses = {"aux_loss_alpha": job.options.balance_loss, "mtp_loss_weight": job.options.mtp_loss}
    if job.init.path is not None:
        model = DeepSeekV3.from_pretrained(job.init.path, torch.float32, **losses)
        if model.config.vocab_size < encoder.vocab_size:
            raise ConfigError(
                f"model.path {job.init.path} knows {model.config.vocab_size} tokens,"
                f" the tokenizer {encoder.vocab_size}: use the checkpoint's own tokenizer"
            )
    else:
        named = special_tokens(job.tokenizer)
        tokens = {"vocab_size": encoder.vocab_size} | {
            f"{name}_token_id": encoder.token_id(named[f"{name}_token"])
            for name in ("bos", "eos", "pad")
            if f"{name}_token" in named
        }
        config = DeepSeekConfig.preset(job.init.preset, **tokens | dict(job.init.overrides))
        model = DeepSeekV3(replace(config, **losses), seed=job.seed)
    if model.config.max_position_embeddings < job.options.seq_length:
        raise ConfigError(
            f"train.seq_length {job.options.seq_length} exceeds the model's max_position_embeddings"
            f" {model.config.max_position_embeddings}: lower it"
        )
    return model
