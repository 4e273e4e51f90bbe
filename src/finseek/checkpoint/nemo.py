"""To NVIDIA NeMo AutoModel: a checkpoint folder that its recipes load, with the YAML that says how."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finseek.checkpoint.dequantize import dequantize_checkpoint
from finseek.checkpoint.options import DequantizeOptions
from finseek.checkpoint.shards import CONFIG, read_json
from finseek.checkpoint.stream.job import Conversion
from finseek.core.artifacts import write_text
from finseek.core.errors import ConfigError, FinseekError, MissingPart
from finseek.core.progress import Progress, silent
from finseek.model import DeepSeekConfig

AUTOMODEL_YAML = "automodel.yaml"
# Layers of AutoModel without Transformer Engine and DeepEP: plain torch, on any device.
BACKEND: dict[str, Any] = {
    "attn": "sdpa",
    "linear": "torch",
    "rms_norm": "torch",
    "experts": "torch",
    "dispatcher": "torch",
    "enable_hf_state_dict_adapter": True,
}


@dataclass(frozen=True)
class NemoOptions:
    """How AutoModel is to hold the model.

    Attributes:
        expert_model_parallel_size: processes that share the routed experts.
        pipeline_model_parallel_size: stages.
        backend: AutoModel's implementations of the layers.
        dequantize: how the weights are made, if they are FP8; MTP layers stay in the files, though AutoModel 0.7 does
            not train them, so that `export_hf` can carry them over.
    """

    expert_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    backend: Mapping[str, Any] = field(default_factory=lambda: dict(BACKEND))
    dequantize: DequantizeOptions = field(default_factory=DequantizeOptions)


def import_automodel(
    src: str | Path, dst: str | Path, options: NemoOptions | None = None, progress: Progress = silent
) -> Conversion:
    """Write BF16 weights under Hugging Face names, which AutoModel loads in shares, and `automodel.yaml` beside them.

    Raises:
        ConfigError: the experts or layers cannot be shared so.
        InputError: the source or the destination does not do.
    """
    options = options or NemoOptions()
    config = DeepSeekConfig.from_json(src)
    check_layout(config, options)
    done = dequantize_checkpoint(src, dst, options.dequantize, progress)
    if options.dequantize.stream.rank == 0:
        write_text(Path(dst) / AUTOMODEL_YAML, automodel_yaml(Path(dst), options))
    return done


def check_layout(config: DeepSeekConfig, options: NemoOptions) -> None:
    """Refuse a layout that does not divide.

    Raises:
        ConfigError: names the size.
    """
    ep, pp = options.expert_model_parallel_size, options.pipeline_model_parallel_size
    if ep < 1 or config.n_routed_experts % ep:
        raise ConfigError(
            f"expert_model_parallel_size: {ep} must divide the {config.n_routed_experts} routed experts of the model"
        )
    if not 1 <= pp <= config.num_hidden_layers:
        raise ConfigError(f"pipeline_model_parallel_size: {pp} must be in 1..{config.num_hidden_layers}, the layers")


def automodel_yaml(folder: Path, options: NemoOptions) -> str:
    """The parts of an AutoModel recipe that depend on the checkpoint; data, schedule, optimiser are the trainer's."""
    import yaml

    torch_dtype = read_json(folder / CONFIG).get("torch_dtype", "bfloat16")
    recipe = {
        "recipe": "TrainFinetuneRecipeForNextTokenPrediction",
        "model": {
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
            "pretrained_model_name_or_path": str(folder.resolve()),
            "torch_dtype": torch_dtype,
            "backend": {"_target_": "nemo_automodel.components.models.common.BackendConfig", **options.backend},
        },
        "distributed": {
            "strategy": "fsdp2",
            "tp_size": 1,
            "cp_size": 1,
            "pp_size": options.pipeline_model_parallel_size,
            "ep_size": options.expert_model_parallel_size,
        },
        "checkpoint": {
            "enabled": True,
            "model_save_format": "safetensors",
            "save_consolidated": "final",
            "dequantize_base_checkpoint": False,
        },
    }
    head = (
        "# For NeMo AutoModel: add dataset, dataloader, step_scheduler, optimizer, or let finseek train write them.\n"
    )
    return head + yaml.safe_dump(recipe, sort_keys=False)


def prove_automodel_loads(folder: str | Path, processes: int = 2, out: Path | None = None, timeout: float = 600) -> str:
    """Load the checkpoint in AutoModel, experts shared by `processes`, and compare every number; the processes' report.

    Raises:
        MissingPart: AutoModel is not installed.
        FinseekError: it does not load, or a number differs.
    """
    if find_spec("nemo_automodel") is None:
        raise MissingPart("nemo_automodel", "nemo", "loading a checkpoint in NeMo AutoModel")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launch, "-m", "finseek.checkpoint.automodel_load", str(folder), *([str(out)] if out else [])]
    quiet = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | quiet, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()[-1:]
        raise FinseekError(
            f"{folder} does not load in AutoModel on {processes} processes: {lines[0] if lines else '?'}"
        )
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("rank "))
