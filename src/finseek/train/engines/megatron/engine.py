"""Engine `megatron`: files with which Megatron-Bridge 0.6.2 trains, in NVIDIA's container.

Megatron-Bridge needs Transformer Engine and a GPU, so nothing here has ever run it: the names and the arguments of its
calls are checked against the source of the published wheel, and that is all that is known of them. The engine writes
the files and says that they have to be run; it never claims to have trained.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import orjson

from finseek.checkpoint.megatron import MegatronOptions, check_sizes
from finseek.checkpoint.shards import read_checkpoint
from finseek.core.artifacts import write_bytes, write_lines, write_text
from finseek.core.errors import ConfigError, FinseekError
from finseek.core.progress import Progress, silent
from finseek.model import DeepSeekConfig
from finseek.samples import Encoder, load_samples
from finseek.train.engines.prepared import Prepared, prepare
from finseek.train.job import TrainJob

FOLDER, SETTINGS, PROGRAM, SCRIPT = "megatron", "settings.json", "train.py", "launch.sh"
SPLITS = ("training", "validation")
# Megatron fuses maps that Hugging Face keeps apart, so a preset names what holds them.
ATTENTION = ("linear_q_proj", "linear_q_down_proj", "linear_q_up_proj", "linear_kv_down_proj", "linear_kv_up_proj",
             "linear_proj")  # fmt: skip
TARGETS = {
    "attention": ATTENTION,
    "attention+experts": (*ATTENTION, "*.experts.linear_fc1", "*.experts.linear_fc2"),
    "all": (*ATTENTION, "linear_fc1", "linear_fc2"),
}


class MegatronEngine:
    """Writes what Megatron-Bridge needs."""

    def run(self, job: TrainJob, progress: Progress = silent) -> NoReturn:
        """Write data, settings, program and launch script into ``megatron/``.

        Raises:
            ConfigError: for what Megatron-Bridge cannot do.
            FinseekError: when all is written: it has to be run in the container.
        """
        check_job_for_megatron(job)
        prepared = prepare(job, progress)
        folder = job.output / FOLDER
        for split in SPLITS:
            write_lines(folder / "data" / f"{split}.jsonl", _lines(getattr(job, split), prepared.encoder))
        write_bytes(
            folder / SETTINGS, orjson.dumps(settings(job, folder.resolve(), prepared), option=orjson.OPT_INDENT_2)
        )
        write_text(folder / PROGRAM, Path(__file__).with_name("program.py").read_text())
        write_text(folder / SCRIPT, launch_script(job))
        raise FinseekError(
            f"engine megatron has trained nothing: {folder / SCRIPT} has to be run on each machine, in NVIDIA's NeMo"
            f" container with megatron-bridge 0.6.2; it leaves a Hugging Face checkpoint in {folder / 'hf'}"
        )


def check_job_for_megatron(job: TrainJob) -> None:
    """Refuse what cannot be written down for Megatron-Bridge.

    Raises:
        ConfigError: names the key and the remedy.
    """
    options, parallel, lora = job.options, job.parallel, job.options.lora
    if job.init.path is None:
        raise ConfigError("train.engine megatron starts from a checkpoint: give model.path instead of model.preset")
    config = DeepSeekConfig.from_dict(read_checkpoint(job.init.path).config)
    sizes = ("tensor", "pipeline", "expert")
    check_sizes(config, MegatronOptions(*(getattr(parallel, f"{name}_model_parallel_size") for name in sizes)))
    if options.loss_weights.action != options.loss_weights.rest:
        raise ConfigError("train.loss_weights: Megatron-Bridge weighs all tokens alike: make them equal")
    if options.average_decay or options.load_in_4bit:
        raise ConfigError("train.average_decay and train.load_in_4bit are not known to Megatron-Bridge: leave them out")
    if options.packed_sequence_size or options.gradient_checkpointing or options.precision == "fp32":
        raise ConfigError(
            "train.packed_sequence_size, train.gradient_checkpointing and train.precision fp32 are not written down for"
            " Megatron-Bridge, which pads, keeps all activations and computes in bf16: leave them out"
        )
    if lora and lora.alpha != int(lora.alpha):
        raise ConfigError(f"train.lora.alpha {lora.alpha:g}: Megatron-Bridge takes whole numbers: give one")
    if lora and not isinstance(lora.target_modules, str):
        raise ConfigError(
            f"train.lora.target_modules: engine megatron has other names of modules: give one of {', '.join(TARGETS)}"
        )
    if lora and (lora.bias != "none" or lora.rslora or lora.loftq):
        raise ConfigError("train.lora: bias, rslora and loftq are not known to Megatron-Bridge: leave them out")


def settings(job: TrainJob, folder: Path, prepared: Prepared) -> dict[str, Any]:
    """Everything that the program depends on, as plain values."""
    options, parallel, lora = job.options, job.parallel, job.options.lora
    assert job.init.path is not None
    sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
    return {
        "base": str(job.init.path.resolve()),
        "tokenizer": str(job.tokenizer.resolve()),
        "folder": str(folder),
        "sizes": {
            **{name: getattr(parallel, name) for name in sizes},
            "expert_model_parallel_size": parallel.expert_model_parallel_size,
            "sequence_parallel": parallel.tensor_model_parallel_size > 1,
        },
        "seq_length": options.seq_length,
        "steps": prepared.total,
        "global_batch_size": options.global_batch_size,
        "micro_batch_size": options.micro_batch_size,
        "validate_every": prepared.validate_every,
        "validation_steps": -(-len(prepared.validation) // options.global_batch_size),
        "save_every": options.checkpoint_every,
        "log_every": options.log_every_n_steps,
        "seed": job.seed,
        "answer_only_loss": options.answer_only_loss,
        "optimizer": {
            "max_lr": options.learning_rate,
            "min_lr": options.learning_rate * options.min_learning_rate_ratio,
            "lr_warmup_iters": options.warmup_steps,
            "lr_decay_iters": prepared.total,
            "adam_beta1": options.betas[0],
            "adam_beta2": options.betas[1],
            "weight_decay": options.weight_decay,
            "clip_grad": options.gradient_clip_val,
        },
        "router": {
            "moe_router_bias_update_rate": 0.0 if lora else options.router_bias_update_rate,
            "moe_aux_loss_coeff": options.balance_loss,
            "mtp_loss_scaling_factor": options.mtp_loss,
        },
        "lora": {
            "target_modules": list(TARGETS[str(lora.target_modules)]),
            "dim": lora.rank,
            "alpha": int(lora.alpha),
            "dropout": lora.dropout,
            "dropout_position": "pre",
        }
        if lora
        else None,
    }


def launch_script(job: TrainJob) -> str:
    """Bash that imports the checkpoint once, trains, and exports; run on each machine with its number and the first."""
    parallel = job.parallel
    shape = [f"--nnodes={parallel.num_nodes}", f"--nproc-per-node={parallel.devices_per_node}"]
    meeting = ["--rdzv-backend=c10d", '--rdzv-endpoint="${HEAD:-localhost}:29400"'] if parallel.num_nodes > 1 else []
    alone = [] if meeting else ["--standalone"]
    run = " ".join(["torchrun", *map(shlex.quote, [*shape, *alone]), *meeting, PROGRAM])
    return "\n".join(
        [
            "#!/bin/bash",
            "# Written by finseek; it has not been run anywhere but perhaps by you. In NVIDIA's NeMo container:",
            "#   HEAD=FIRST_MACHINE bash launch.sh      on each machine, which see this folder under the same path",
            "set -euo pipefail",
            'cd "$(dirname "$0")"',
            f"[ -e base/latest_checkpointed_iteration.txt ] || {run} import",
            f"{run} train",
            f"{run} export",
            "",
        ]
    )


def _lines(samples: Path, encoder: Encoder) -> Iterator[bytes]:
    """Prompt and answer as the model sees them, special tokens written out."""
    for sample in load_samples(samples):
        prompt = encoder.prompt_ids(sample)
        answer = encoder.encode(sample).input_ids[len(prompt) :]
        yield orjson.dumps({"input": encoder.decode(prompt), "output": encoder.decode(answer.tolist())})
