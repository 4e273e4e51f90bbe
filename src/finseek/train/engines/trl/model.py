"""The model of engine `trl`: loaded by transformers or Unsloth, quantised, adapted, and written at the end."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finseek.checkpoint.shards import refuse_pickles
from finseek.core.artifacts import atomic_folder
from finseek.core.errors import ConfigError, InputError, MissingPart, Note
from finseek.model.lora import targets_of
from finseek.samples import Encoder
from finseek.train.engines.first import adapters, check_fit, check_origin, first_model
from finseek.train.engines.trl.loftq import start_at_what_was_lost
from finseek.train.job import TrainJob

NF4_BLOCK = 64  # in-features of a 4-bit matrix are a multiple of this, or bitsandbytes fails on a CPU


def load_model(job: TrainJob, encoder: Encoder, bf16: bool) -> tuple[nn.Module, int]:
    """The model that the job starts from, frozen and adapted where it says so, and the token of its padding.

    Weights that are trained are float32; frozen ones bfloat16 where the job computes in it. What the user should know
    is said as a note.

    Raises:
        ConfigError: what the checkpoint, the tokenizer, the options and the machine cannot do together.
        InputError: a checkpoint that transformers cannot read.
        MissingPart: bitsandbytes is absent.
    """
    options = job.options
    check_origin(job)
    with_unsloth = options.unsloth and _has_unsloth()
    if options.unsloth and not with_unsloth:
        reason = "Unsloth is not installed (pip install 'finseek[unsloth]', in an environment of its own)"
        warnings.warn(f"train.unsloth: {reason}: transformers loads the model", Note, stacklevel=2)
    with _origin(job, encoder) as folder:
        config = _checked_config(job, folder, encoder)
        if with_unsloth:
            return _by_unsloth(job, folder), _padding(config, encoder)
        model = _load(job, folder, bf16)
    model.config.use_cache = False
    adapted = adapters(model, job)
    for notice in _untrained(model, job):
        warnings.warn(notice, Note, stacklevel=2)
    if options.lora is not None and options.lora.loftq:
        start_at_what_was_lost(adapted, job.init.path)
    return model if adapted is None else adapted, _padding(config, encoder)


def save_checkpoint(model: Any, tokenizer: Path, place: Path) -> None:
    """Write config and weights, or the adapter alone, with the tokenizer; whole or not at all."""
    with atomic_folder(place) as folder:
        if hasattr(model, "peft_config"):
            model.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        else:
            model.config.use_cache = True
            if getattr(model.config, "num_nextn_predict_layers", 0):
                model.config.num_nextn_predict_layers = 0  # transformers neither trains nor writes them
            model.save_pretrained(folder)
        for file in sorted(tokenizer.iterdir()):
            shutil.copyfile(file, folder / file.name)


@contextmanager
def _origin(job: TrainJob, encoder: Encoder) -> Iterator[Path]:
    """The folder to load from; random weights of a preset are those of engine `lightning`, through a file."""
    if job.init.path is not None:
        yield job.init.path
        return
    with tempfile.TemporaryDirectory() as folder:
        first_model(job, encoder).save_pretrained(folder)
        yield Path(folder)


def _checked_config(job: TrainJob, folder: Path, encoder: Encoder) -> Any:
    from transformers import AutoConfig

    refuse_pickles(folder)
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model.path {folder} holds no config that transformers can read ({error})") from None
    quantized = (raw.get("quantization_config") or {}).get("quant_method")
    if quantized not in (None, "bitsandbytes"):
        raise ConfigError(
            f"model.path {folder} is quantised ({quantized}), which cannot be trained: make a plain copy with"
            " `finseek checkpoint dequantize`"
        )
    if quantized and job.options.lora is None:
        raise ConfigError(f"model.path {folder} is in 4-bit, which stays frozen: add train.lora")
    check_fit(job, encoder, config.vocab_size, getattr(config, "max_position_embeddings", None))
    return config


def _load(job: TrainJob, folder: Path, bf16: bool) -> Any:
    from transformers import AutoModelForCausalLM

    given: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 and job.options.lora else torch.float32}
    if job.options.load_in_4bit:
        given |= {"quantization_config": _four_bit(given["dtype"]), "device_map": {"": _device()}}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True, **given)
    except (OSError, ValueError) as error:
        raise InputError(f"model.path {folder} cannot be loaded by transformers ({error})") from None
    if job.options.load_in_4bit:
        _check_four_bit(model)
    return model


def _four_bit(compute: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingPart("bitsandbytes", "trl", "train.load_in_4bit")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _check_four_bit(model: nn.Module) -> None:
    from bitsandbytes.nn import Linear4bit

    quantized = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    if not quantized:
        raise ConfigError("train.load_in_4bit found no matrix that it can quantise in this model: set it to false")
    if _device() == "cpu":
        for name, module in quantized.items():
            # The packed form that bitsandbytes makes at the first validation has no backward pass, and would stay.
            module.support_avx512bf16_for_cpu = False
            if module.in_features % NF4_BLOCK:
                raise ConfigError(
                    f"train.load_in_4bit on a CPU wants in-features that are multiples of {NF4_BLOCK}, {name} has"
                    f" {module.in_features}: use a GPU, or set it to false"
                )


def _untrained(model: Any, job: TrainJob) -> Iterator[str]:
    """What lightning does for this architecture and transformers' model does not."""
    config, options = model.config, job.options
    if getattr(config, "num_nextn_predict_layers", 0) and options.mtp_loss:
        yield "engine trl trains no multi-token prediction and leaves its layers out: train.mtp_loss has no effect"
    if any(name.endswith("e_score_correction_bias") for name, _ in model.named_buffers()) and not options.lora:
        idle = [name for name in ("balance_loss", "router_bias_update_rate") if getattr(options, name)]
        if idle:
            yield f"engine trl does not balance the experts' load: train.{' and train.'.join(idle)} have no effect"
    if options.load_in_4bit and any(parameter.dim() == 3 for parameter in model.parameters()):
        yield "train.load_in_4bit leaves the stacked weights of the routed experts as they are"


def _padding(config: Any, encoder: Encoder) -> int:
    """Any token does: padding is masked, and no loss counts it."""
    pad = config.pad_token_id
    return int(pad if pad is not None else encoder.end_ids[0])


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _has_unsloth() -> bool:
    """Whether Unsloth is here.

    Raises:
        ConfigError: it is, and no GPU. What it brings along (Triton) has other kernels fail there, too.
    """
    if importlib.util.find_spec("unsloth") is None:
        return False
    if not torch.cuda.is_available():
        raise ConfigError(
            "train.unsloth: Unsloth needs a GPU and there is none: set it to false, in an environment without Unsloth"
        )
    return True


def _by_unsloth(job: TrainJob, folder: Path) -> nn.Module:
    """Unsloth's loader, adapters and checkpointing; only where its package and a GPU are, so not tested elsewhere."""
    from unsloth import FastLanguageModel

    options, lora = job.options, job.options.lora
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=options.seq_length,
        load_in_4bit=options.load_in_4bit,
        full_finetuning=lora is None,
    )
    if lora is None:
        return model
    targets = targets_of(model, lora.target_modules, lora.dropout)
    return FastLanguageModel.get_peft_model(
        model,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules=list(targets.modules),
        use_rslora=lora.rslora,
        loftq_config={"loftq_bits": 4, "loftq_iter": 1} if lora.loftq else None,
        use_gradient_checkpointing="unsloth" if options.gradient_checkpointing else False,
        random_state=job.seed,
    )
