"""Train with Megatron-Bridge 0.6.2: `torchrun … train.py import|train|export`, settings in settings.json beside it.

Written by finseek. Only its calls were checked, against the source of the published wheel; it was run nowhere.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from megatron.bridge import AutoBridge
from megatron.bridge.data.builders.gpt_sft import GPTSFTDatasetConfig
from megatron.bridge.peft.lora import LoRA
from megatron.bridge.recipes.utils.optimizer_utils import distributed_fused_adam_with_cosine_annealing
from megatron.bridge.training.config import (
    CheckpointConfig,
    ConfigContainer,
    LoggerConfig,
    RNGConfig,
    TokenizerConfig,
    TrainingConfig,
    ValidationConfig,
)
from megatron.bridge.training.finetune import finetune
from megatron.bridge.training.gpt_step import forward_step

SETTINGS = json.loads(Path(__file__).with_name("settings.json").read_bytes())
FOLDER = Path(SETTINGS["folder"])


def provider_of(bridge: AutoBridge, *, load_weights: bool) -> Any:
    """The model with the job's layout."""
    provider = bridge.to_megatron_provider(load_weights=load_weights)
    for name, value in {**SETTINGS["sizes"], **SETTINGS["router"]}.items():
        setattr(provider, name, value)
    provider.seq_length = SETTINGS["seq_length"]
    return provider


def import_base() -> None:
    """Write the base checkpoint as Megatron has it, shared by the processes."""
    bridge = AutoBridge.from_hf_pretrained(SETTINGS["base"], torch_dtype=torch.bfloat16)
    provider = provider_of(bridge, load_weights=True)
    provider.finalize()
    provider.initialize_model_parallel(seed=0)
    model = provider.provide_distributed_model(wrap_with_ddp=False)
    bridge.save_megatron_model(model, str(FOLDER / "base"), hf_tokenizer_path=SETTINGS["tokenizer"])


def train() -> None:
    """Train, or go on from the last checkpoint."""
    bridge = AutoBridge.from_hf_pretrained(SETTINGS["base"], torch_dtype=torch.bfloat16)
    optimizer, scheduler = distributed_fused_adam_with_cosine_annealing(**SETTINGS["optimizer"])
    config = ConfigContainer(
        model=provider_of(bridge, load_weights=False),
        train=TrainingConfig(
            train_iters=SETTINGS["steps"],
            global_batch_size=SETTINGS["global_batch_size"],
            micro_batch_size=SETTINGS["micro_batch_size"],
        ),
        validation=ValidationConfig(eval_interval=SETTINGS["validate_every"], eval_iters=SETTINGS["validation_steps"]),
        optimizer=optimizer,
        scheduler=scheduler,
        dataset=GPTSFTDatasetConfig(
            seq_length=SETTINGS["seq_length"],
            dataset_root=str(FOLDER / "data"),
            seed=SETTINGS["seed"],
            do_test=False,
            dataset_kwargs={
                "prompt_template": "{input}{output}",
                "label_key": "output",
                "truncation_field": "output",
                "answer_only_loss": SETTINGS["answer_only_loss"],
                "add_bos": False,
                "add_eos": False,
            },
        ),
        logger=LoggerConfig(log_interval=SETTINGS["log_every"], tensorboard_dir=str(FOLDER / "tensorboard")),
        tokenizer=TokenizerConfig(tokenizer_type="HuggingFaceTokenizer", tokenizer_model=SETTINGS["tokenizer"]),
        checkpoint=CheckpointConfig(
            save_interval=SETTINGS["save_every"],
            save=str(FOLDER / "checkpoints"),
            load=str(FOLDER / "checkpoints"),
            pretrained_checkpoint=str(FOLDER / "base"),
            ckpt_format="torch_dist",
            fully_parallel_save=True,
        ),
        rng=RNGConfig(seed=SETTINGS["seed"]),
        mixed_precision="bf16_mixed",
        peft=LoRA(**SETTINGS["lora"]) if SETTINGS["lora"] else None,
    )
    finetune(config, forward_step)


def export() -> None:
    """Write the trained weights as Hugging Face has them."""
    bridge = AutoBridge.from_hf_pretrained(SETTINGS["base"])
    sizes = {name: value for name, value in SETTINGS["sizes"].items() if name.endswith("_model_parallel_size")}
    model = bridge.load_megatron_model(str(FOLDER / "checkpoints"), mp_overrides=sizes, wrap_with_ddp=False)
    bridge.save_hf_pretrained(model, str(FOLDER / "hf"), source_path=SETTINGS["base"], strict=True)


if __name__ == "__main__":
    {"import": import_base, "train": train, "export": export}[sys.argv[1]]()
