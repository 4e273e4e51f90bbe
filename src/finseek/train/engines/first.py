"""The model before its first step."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from finseek.core.errors import ConfigError, Note
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.lora import add_lora, targets_of
from finseek.samples import Encoder
from finseek.samples.templates import special_tokens
from finseek.train.job import TrainJob

if TYPE_CHECKING:
    from peft import PeftModel


def first_model(job: TrainJob, encoder: Encoder) -> DeepSeekV3:
    """Random weights of the job's seed, or a checkpoint's in float32.

    Raises:
        ConfigError: if the checkpoint's vocabulary is not the tokenizer's, or ``train.seq_length`` exceeds its context.
    """
    losses = {"aux_loss_alpha": job.options.balance_loss, "mtp_loss_weight": job.options.mtp_loss}
    if job.init.path is not None:
        check_base(job, encoder)
        return DeepSeekV3.from_pretrained(job.init.path, torch.float32, **losses)
    named = special_tokens(job.tokenizer)
    tokens = {"vocab_size": encoder.vocab_size} | {
        f"{name}_token_id": encoder.token_id(named[f"{name}_token"])
        for name in ("bos", "eos", "pad")
        if f"{name}_token" in named
    }
    config = DeepSeekConfig.preset(job.init.preset, **tokens | dict(job.init.overrides))
    check_fit(job, encoder, config.vocab_size, config.max_position_embeddings)
    return DeepSeekV3(replace(config, **losses), seed=job.seed)


def check_base(job: TrainJob, encoder: Encoder) -> None:
    """:func:`check_fit` of a checkpoint by its config.json alone, whatever its family; for random weights nothing.

    Raises:
        ConfigError: naming both numbers.
    """
    if job.init.path is None:
        return
    try:
        config = json.loads((job.init.path / "config.json").read_bytes())
        vocab_size, context = config.get("vocab_size"), config.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):  # whoever loads it tells what is wrong
        return
    check_fit(job, encoder, vocab_size, context)


def check_fit(job: TrainJob, encoder: Encoder, vocab_size: int | None, context: int | None) -> None:
    """Refuse a model that does not know every token, or has no place for the longest sample; None is not known.

    Raises:
        ConfigError: naming both numbers.
    """
    if vocab_size is not None and vocab_size < encoder.vocab_size:
        named, remedy = (
            (f"model.path {job.init.path}", "use the checkpoint's own tokenizer")
            if job.init.path
            else (f"model.preset {job.init.preset} with model.overrides.vocab_size", "leave vocab_size out")
        )
        raise ConfigError(f"{named} knows {vocab_size} tokens, the tokenizer {encoder.vocab_size}: {remedy}")
    if context is not None and context < job.options.seq_length:
        raise ConfigError(
            f"train.seq_length {job.options.seq_length} exceeds the model's max_position_embeddings {context}: lower it"
        )


def check_origin(job: TrainJob) -> None:
    """Refuse adapters beside random weights, which no file would keep.

    Raises:
        ConfigError: names the remedy.
    """
    if job.options.lora is not None and job.init.path is None:
        raise ConfigError(
            "train.lora adapts an existing checkpoint, model.preset has random weights: give model.path instead of"
            " model.preset, or train all weights with train.lora null"
        )


def adapters(model: nn.Module, job: TrainJob) -> PeftModel | None:
    """Freeze a model and put the job's adapters into it; None where every weight is trained.

    Raises:
        ConfigError: for adapters beside random weights, or targets that are not there.
    """
    check_origin(job)
    lora, base = job.options.lora, job.init.path
    if lora is None or base is None:
        return None
    for notice in targets_of(model, lora.target_modules, lora.dropout).notices:
        warnings.warn(notice, Note, stacklevel=2)
    adapted = add_lora(
        model, lora.rank, lora.alpha, lora.dropout, lora.bias, lora.target_modules, job.seed, rslora=lora.rslora
    )
    for config in adapted.peft_config.values():
        config.base_model_name_or_path = str(base.resolve())
    return adapted
