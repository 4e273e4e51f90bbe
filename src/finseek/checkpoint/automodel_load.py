"""Load a checkpoint in NeMo AutoModel under expert parallelism and compare every number with the files.

    torchrun --nproc-per-node 2 -m finseek.checkpoint.automodel_load FOLDER [OUT.pt]

Each process ends with an error if a tensor differs. With OUT, rank 0 also writes the logits of a few tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def load_and_compare(folder: Path, ep_size: int, out: Path | None = None) -> int:
    """Build the model across the current process group, compare it with the files; how many tensors are equal.

    Raises:
        ArtifactError: a loaded tensor differs from the file's.
    """
    import torch
    from nemo_automodel import NeMoAutoModelForCausalLM
    from nemo_automodel.components.distributed.config import DistributedSetup, FSDP2Config
    from nemo_automodel.components.distributed.mesh import ParallelismSizes
    from nemo_automodel.components.models.common import BackendConfig
    from safetensors import safe_open
    from torch.distributed.fsdp import MixedPrecisionPolicy

    from finseek.checkpoint.automodel_cpu import patch_automodel_without_cuda
    from finseek.checkpoint.layouts import from_layout
    from finseek.checkpoint.nemo import BACKEND
    from finseek.checkpoint.shards import read_checkpoint
    from finseek.core.errors import ArtifactError
    from finseek.model import DeepSeekConfig

    patch_automodel_without_cuda()
    config, files = DeepSeekConfig.from_json(folder), read_checkpoint(folder)
    dtype = files.config.get("torch_dtype", "bfloat16")
    exact = getattr(torch, dtype)  # by default FSDP computes in bfloat16 whatever the weights are
    policy = MixedPrecisionPolicy(param_dtype=exact, reduce_dtype=torch.float32, output_dtype=exact)
    setup = DistributedSetup.build(FSDP2Config(mp_policy=policy), ParallelismSizes(ep_size=ep_size))
    model: Any = NeMoAutoModelForCausalLM.from_pretrained(
        str(folder), torch_dtype=dtype, backend=BackendConfig(**BACKEND), distributed_setup=setup
    )
    whole = {name: _full(value) for name, value in model.state_dict().items()}
    equal = 0
    for name, value in from_layout(whole, config, "automodel", mtp=False):
        with safe_open(folder / files.tensors[name].shard, framework="pt") as shard:
            stored = shard.get_tensor(name)
        if not torch.equal(value.to(stored.dtype).cpu(), stored):
            raise ArtifactError(f"{folder}: {name} differs after AutoModel has loaded it")
        equal += 1
    ids = torch.arange(2 * 24).reshape(2, 24) * 7 % config.vocab_size
    model.eval()
    with torch.no_grad():
        logits = model(ids.to(next(model.parameters()).device))
    logits = _full(getattr(logits, "logits", logits))
    if out is not None and torch.distributed.get_rank() == 0:
        torch.save({"ids": ids, "logits": logits.float().cpu()}, out)
    return equal


def _full(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def main() -> None:
    """The command line under torchrun."""
    import torch

    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    world = torch.distributed.get_world_size()
    equal = load_and_compare(Path(sys.argv[1]), world, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    print(f"rank {torch.distributed.get_rank()} of {world}: {equal} tensors equal", flush=True)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
