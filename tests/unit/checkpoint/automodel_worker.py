"""Run by torchrun: load a folder in AutoModel, save it with AutoModel's own checkpointer, whole or as an adapter.

    torchrun … automodel_worker.py FOLDER OUT

OUT/whole is an AutoModel checkpoint, OUT/lora another with an adapter, OUT/lora.pt what the adapted model says.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from nemo_automodel.components._peft.lora import PeftConfig
from nemo_automodel.components.checkpoint.checkpointing import Checkpointer
from nemo_automodel.components.checkpoint.config import CheckpointingConfig

from finseek.checkpoint.automodel_load import load_in_automodel, logits
from finseek.model import DeepSeekConfig

PROJECTIONS = ["*mlp.experts", "*q_a_proj", "*q_b_proj", "*kv_a_proj_with_mqa", "*kv_b_proj", "*o_proj"]


def save(model: Any, setup: Any, folder: Path, source: Path, peft: PeftConfig | None) -> None:
    config = CheckpointingConfig(checkpoint_dir=folder, model_repo_id=str(source), is_peft=peft is not None)
    moe_mesh = setup.mesh_context.moe_mesh
    checkpointer = Checkpointer(config, torch.distributed.get_rank(), 0, 0, moe_mesh)
    step = folder / "epoch_0_step_3"
    checkpointer.save_model(model, str(step), peft_config=peft, is_final_checkpoint=True)
    checkpointer.close()
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        (folder / "LATEST").symlink_to(step.name)


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    torch.distributed.init_process_group("gloo")
    model, setup = load_in_automodel(source, torch.distributed.get_world_size())
    save(model, setup, out / "whole", source, None)
    peft = PeftConfig(target_modules=PROJECTIONS, dim=4, alpha=10)
    model, setup = load_in_automodel(source, torch.distributed.get_world_size(), peft_config=peft)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                local = getattr(parameter, "to_local", lambda parameter=parameter: parameter)()
                local.copy_(torch.randn(parameter.shape, generator=generator)[: local.shape[0]] * 0.1)
    said = logits(model, DeepSeekConfig.from_json(source).vocab_size)
    save(model, setup, out / "lora", source, peft)
    if torch.distributed.get_rank() == 0:
        torch.save(said, out / "lora.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
