"""A job as AutoModel 0.7's recipe in YAML."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml

from finseek.checkpoint.nemo import BACKEND
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.lora import targets_of
from finseek.train.engines.automodel.data import TRAINING, VALIDATION
from finseek.train.engines.prepared import Prepared
from finseek.train.job import TrainJob
from finseek.train.options import LoraOptions, ParallelOptions

FOLDER, RECIPE = "automodel", "recipe.yaml"  # in the job's folder
NEMO, DATA = "nemo_automodel", "finseek.train.engines.automodel.data"
TIMEOUT_MINUTES = 60
VECTORS = r"norm\.weight$"  # the parameters that do not decay


@dataclass(frozen=True)
class Machine:
    """What is there to compute with.

    Attributes:
        cuda: GPUs.
        transformer_engine: NVIDIA's layers for them.
        deep_ep: its exchange of tokens between experts.
    """

    cuda: bool = False
    transformer_engine: bool = False
    deep_ep: bool = False

    @classmethod
    def here(cls) -> Machine:
        """This machine."""
        cuda = torch.cuda.is_available()
        return cls(
            cuda, cuda and find_spec("transformer_engine") is not None, cuda and find_spec("deep_ep") is not None
        )

    def backend(self, parallel: ParallelOptions) -> dict[str, Any]:
        """AutoModel's implementations of the layers; finseek's shares of heads are of torch's attention."""
        fused = self.transformer_engine and parallel.tensor_model_parallel_size == 1
        attention = {"attn": "te", "linear": "te"} if fused else {}
        experts = {"experts": "torch_mm"} if self.cuda else {}
        return BACKEND | attention | experts | ({"dispatcher": "deepep"} if self.deep_ep else {})


def recipe_text(job: TrainJob, folder: Path, start: Path, prepared: Prepared, machine: Machine) -> str:
    """The recipe of a job as YAML text."""
    head = "# Written by finseek for NeMo AutoModel 0.7; finseek.train.engines.automodel.worker runs it.\n"
    return head + yaml.safe_dump(recipe(job, folder.resolve(), start.resolve(), prepared, machine), sort_keys=False)


def recipe(job: TrainJob, folder: Path, start: Path, prepared: Prepared, machine: Machine) -> dict[str, Any]:
    """The recipe of a job.

    Args:
        job: what is trained, and how.
        folder: that holds the arrays of the samples, and gets the checkpoints.
        start: checkpoint of the first weights.
        prepared: its samples and steps.
        machine: where it will run.
    """
    options, config = job.options, DeepSeekConfig.from_json(start)
    sizes, steps = Sizes.of(job), prepared.total
    tokenizer = {"pretrained_model_name_or_path": str(job.tokenizer.resolve())}
    collate = {"_target_": f"{DATA}.collate", "pad_id": config.pad_token_id or 0, "multiple": sizes.length_multiple}
    loader = {"_target_": "torchdata.stateful_dataloader.StatefulDataLoader", "collate_fn": collate, "shuffle": False}
    return {
        "recipe": "TrainFinetuneRecipeForNextTokenPrediction",
        "seed": job.seed,
        "step_scheduler": {
            "global_batch_size": sizes.slots,
            "local_batch_size": sizes.local_batch_size,
            "num_epochs": 1,
            "max_steps": steps,
            "ckpt_every_steps": options.checkpoint_every,
            "val_every_steps": prepared.validate_every,
            "preemption_signal": "SIGUSR1",
        },
        "dist_env": {"backend": "nccl" if machine.cuda else "gloo", "timeout_minutes": TIMEOUT_MINUTES},
        "distributed": _distributed(job, machine),
        "model": _model(job, config, start, machine),
        "checkpoint": {
            "enabled": True,
            "checkpoint_dir": str(folder / "checkpoints"),
            "model_save_format": "safetensors",
            "save_consolidated": "every" if options.keep == "best" else "final",
            "max_recent_checkpoints": options.keep_states,
        },
        "loss_fn": {"_target_": f"{NEMO}.components.loss.masked_ce.MaskedCrossEntropy"},
        "dataset": {
            "_target_": f"{DATA}.training_rows",
            "folder": str(folder / TRAINING),
            "seed": job.seed,
            "global_batch_size": options.global_batch_size,
            "steps": steps,
            "slots": sizes.slots,
            "tokenizer": tokenizer,
        },
        "validation_dataset": {
            "_target_": f"{DATA}.validation_rows",
            "folder": str(folder / VALIDATION),
            "multiple": sizes.replicas * sizes.local_batch_size,
            "tokenizer": tokenizer,
        },
        "dataloader": loader,
        "validation_dataloader": loader,
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "lr": options.learning_rate,
            "betas": list(options.betas),
            "weight_decay": options.weight_decay,
            "param_group_overrides": [{"pattern": VECTORS, "wd_mult": 0.0}],
        },
        "clip_grad_norm": {"max_norm": options.gradient_clip_val or float("inf")},
    } | ({"peft": _adapters(options.lora, config)} if options.lora else {})


@dataclass(frozen=True)
class Sizes:
    """How the rows of a step are dealt.

    Attributes:
        replicas: processes that see different rows.
        passes: forward passes of a step in each of them.
        local_batch_size: rows that AutoModel takes at a time: a forward pass, or all passes of a pipeline.
        slots: rows of a step, empty ones included.
        length_multiple: that a split sequence needs.
    """

    replicas: int
    passes: int
    local_batch_size: int
    slots: int
    length_multiple: int

    @classmethod
    def of(cls, job: TrainJob) -> Sizes:
        """The sizes of a job."""
        options, parallel = job.options, job.parallel
        stages, shares = parallel.pipeline_model_parallel_size, parallel.context_parallel_size
        replicas = parallel.world_size // stages // shares // parallel.tensor_model_parallel_size
        own = -(-options.global_batch_size // replicas)
        passes = -(-own // options.micro_batch_size)
        local = options.micro_batch_size * (passes if stages > 1 else 1)
        slots = passes * options.micro_batch_size * replicas
        return cls(replicas, passes, local, slots, 2 * shares if shares > 1 else 1)


def _dtype(job: TrainJob, machine: Machine) -> str:
    precision = job.options.precision
    return "bfloat16" if precision == "bf16" or (precision == "auto" and machine.cuda) else "float32"


def _distributed(job: TrainJob, machine: Machine) -> dict[str, Any]:
    parallel, dtype = job.parallel, _dtype(job, machine)
    stages = parallel.pipeline_model_parallel_size
    pipeline = {
        "pipeline": {
            "pp_schedule": "1f1b",
            "pp_microbatch_size": job.options.micro_batch_size,
            "patch_inner_model": False,  # these patches are for models of transformers
            "patch_causal_lm_model": False,
        }
    }
    return {
        "strategy": "fsdp2",
        "tp_size": parallel.tensor_model_parallel_size,
        "cp_size": parallel.context_parallel_size,
        "pp_size": stages,
        "ep_size": parallel.expert_model_parallel_size,
        # By default it computes in bfloat16 whatever the weights are.
        "mp_policy": {
            "_target_": "torch.distributed.fsdp.MixedPrecisionPolicy",
            "param_dtype": dtype,
            "reduce_dtype": "float32",
            "output_dtype": dtype,
            "cast_forward_inputs": False,
        },
        "activation_checkpointing": job.options.gradient_checkpointing,
    } | (pipeline if stages > 1 else {})


def _model(job: TrainJob, config: DeepSeekConfig, start: Path, machine: Machine) -> dict[str, Any]:
    """The model; with adapters the router's bias stays, since it is no part of an adapter."""
    rate = 0.0 if job.options.lora else job.options.router_bias_update_rate
    return {
        "_target_": f"{NEMO}.NeMoAutoModelForCausalLM.from_pretrained",
        "pretrained_model_name_or_path": str(start),
        "torch_dtype": _dtype(job, machine),
        "backend": {"_target_": f"{NEMO}.components.models.common.BackendConfig", **machine.backend(job.parallel)},
        "moe_overrides": {
            "gate_bias_update_factor": rate,
            "force_e_score_correction_bias": True,  # else it would be dropped, with its choice of experts, at rate 0
            "aux_loss_coeff": job.options.balance_loss,
        },
    }


def _adapters(lora: LoraOptions, config: DeepSeekConfig) -> dict[str, Any]:
    """The adapters; names become patterns, since AutoModel matches whole paths."""
    with torch.device("meta"):
        model = DeepSeekV3(config)
    names = targets_of(model, lora.target_modules, lora.dropout).names
    return {
        "_target_": f"{NEMO}.components._peft.lora.PeftConfig",
        "target_modules": [f"*.mlp.{name}" if name == "experts" else f"*.{name}" for name in names],
        "dim": lora.rank,
        "alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "dropout": lora.dropout,
        "dropout_position": "pre",
        "lora_A_init": "uniform",
        "use_triton": False,
    }
