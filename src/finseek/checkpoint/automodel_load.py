"""Load a checkpoint in NeMo AutoModel under expert parallelism and compare every number with the files.

    torchrun --nproc-per-node 2 -m finseek.checkpoint.automodel_load FOLDER [OUT.pt]

Each process ends with an error if a tensor differs. With OUT, rank 0 also writes the logits of a few tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finseek.checkpoint.shards import Checkpoint


def load_in_automodel(folder: Path, ep_size: int, **settings: Any) -> tuple[Any, Any]:
    """The model across the current process group, computing in the type of its files, and its meshes.

    Args:
        folder: a Hugging Face folder.
        ep_size: processes that share the routed experts.
        settings: more of `NeMoAutoModelForCausalLM.from_pretrained`, such as `peft_config`.
    """
    import torch
    from nemo_automodel import NeMoAutoModelForCausalLM
    from nemo_automodel.components.distributed.config import DistributedSetup, FSDP2Config
    from nemo_automodel.components.distributed.mesh import ParallelismSizes
    from nemo_automodel.components.models.common import BackendConfig
    from torch.distributed.fsdp import MixedPrecisionPolicy

    from finseek.checkpoint.automodel_cpu import patch_automodel_without_cuda
    from finseek.checkpoint.nemo import BACKEND
    from finseek.checkpoint.shards import CONFIG, read_json

    patch_automodel_without_cuda()
    dtype = read_json(folder / CONFIG).get("torch_dtype", "bfloat16")
    exact = getattr(torch, dtype)  # by default FSDP computes in bfloat16 whatever the weights are
    policy = MixedPrecisionPolicy(param_dtype=exact, reduce_dtype=torch.float32, output_dtype=exact)
    setup = DistributedSetup.build(FSDP2Config(mp_policy=policy), ParallelismSizes(ep_size=ep_size))
    model = NeMoAutoModelForCausalLM.from_pretrained(
        str(folder), torch_dtype=dtype, backend=BackendConfig(**BACKEND), distributed_setup=setup, **settings
    )
    return model, setup


def load_and_compare(folder: Path, ep_size: int, out: Path | None = None) -> int:
    """Build the model across the current process group, compare it with the files; how many tensors are equal.

    Raises:
        ArtifactError: a loaded tensor differs from the file's.
    """
    import torch

    from finseek.checkpoint.layouts import from_layout
    from finseek.checkpoint.shards import read_checkpoint
    from finseek.core.errors import ArtifactError
    from finseek.model import DeepSeekConfig

    model, _ = load_in_automodel(folder, ep_size)
    config, files = DeepSeekConfig.from_json(folder), read_checkpoint(folder)
    whole = {name: _full(value) for name, value in model.state_dict().items()}
    equal = 0
    for name, value in from_layout(whole, config, "automodel", mtp=False):
        stored = _stored(files, name)
        if not torch.equal(value.to(stored.dtype).cpu(), stored):
            raise ArtifactError(f"{folder}: {name} differs after AutoModel has loaded it")
        equal += 1
    said = logits(model, config.vocab_size)
    if out is not None and torch.distributed.get_rank() == 0:
        torch.save(said, out)
    return equal


def logits(model: Any, vocabulary: int) -> dict[str, Any]:
    """What a model says to a few tokens."""
    import torch

    ids = torch.arange(2 * 24).reshape(2, 24) * 7 % vocabulary
    model.eval()
    with torch.no_grad():
        said = model(ids.to(next(model.parameters()).device))
    return {"ids": ids, "logits": _full(getattr(said, "logits", said)).float().cpu()}


def _stored(files: Checkpoint, name: str) -> Any:
    from safetensors import safe_open

    with safe_open(files.folder / files.tensors[name].shard, framework="pt") as shard:
        return shard.get_tensor(name)


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
