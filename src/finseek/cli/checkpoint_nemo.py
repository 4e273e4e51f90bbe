"""``finseek checkpoint import-nemo|export-hf``: to NVIDIA NeMo, and back from any training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from finseek.cli.conversion import (
    Memory,
    Mtp,
    MtpOption,
    Resume,
    ShardSize,
    Source,
    Target,
    Workers,
    say_once,
    show,
    streaming,
    tell,
)
from finseek.cli.shared import JsonOption

if TYPE_CHECKING:
    from finseek.checkpoint.megatron import MegatronOptions

TensorParallel = Annotated[int, typer.Option(help="Megatron: processes that share each matrix.")]
PipelineParallel = Annotated[int, typer.Option(help="Pipeline stages.")]
ExpertParallel = Annotated[int, typer.Option(help="Processes that share the routed experts.")]


class Adapter(StrEnum):
    """What becomes of an adapter."""

    merge = "merge"
    keep = "keep"


class Nemo(StrEnum):
    """The parts of NeMo that a checkpoint can be for."""

    automodel = "automodel"
    megatron = "megatron"
    legacy = "legacy"


def import_nemo(
    context: typer.Context,
    source: Source,
    target: Target,
    to: Annotated[Nemo, typer.Option(help="AutoModel, Megatron-Bridge, or .nemo of NeMo 2.7.")] = Nemo.automodel,
    tensor_parallel: TensorParallel = 1,
    pipeline_parallel: PipelineParallel = 1,
    expert_parallel: ExpertParallel = 1,
    prove: Annotated[
        int, typer.Option(help="Load the result in AutoModel on that many processes and compare every number.", min=0)
    ] = 0,
    workers: Workers = 8,
    memory: Memory = "2GiB",
    shard_size: ShardSize = "5GB",
    resume: Resume = False,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint ready for NVIDIA NeMo.

    For AutoModel: BF16 weights and the YAML that loads them in shares. For Megatron-Bridge, under torchrun with as
    many processes as the sizes need; for NeMo 2.7 (legacy), a .nemo folder.

    Example: finseek checkpoint import-nemo DeepSeek-V3 DeepSeek-V3-automodel --expert-parallel 64
    """
    from finseek.checkpoint import DequantizeOptions, NemoOptions, import_automodel, megatron
    from finseek.checkpoint.nemo import prove_automodel_loads
    from finseek.core.errors import ConfigError

    if to is Nemo.megatron:
        megatron.import_megatron(source, target, _sizes(tensor_parallel, pipeline_parallel, expert_parallel))
    elif to is Nemo.legacy:
        megatron.import_legacy(source, target)
    if to is not Nemo.automodel:
        say_once(f"{target}: written for {to.value}")
        return
    if tensor_parallel != 1:
        raise ConfigError(
            f"tensor_parallel: {tensor_parallel} must be 1 with AutoModel, which shares experts and layers"
        )
    with streaming(workers, memory, shard_size, resume=resume) as stream:
        options = NemoOptions(expert_parallel, pipeline_parallel, dequantize=DequantizeOptions(stream=stream))
        done = import_automodel(source, target, options, show(context, stream))
        tell(done, stream, as_json)
    if prove and not stream.rank:
        _say(context, prove_automodel_loads(target, prove))


def export_hf(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="AutoModel or Megatron checkpoint, adapter, .nemo, training state.")],
    target: Target,
    base: Annotated[Optional[Path], typer.Option(help="Checkpoint that training began from.")] = None,  # noqa: UP045
    adapter: Annotated[Adapter, typer.Option(help="Merge an adapter into the base, or keep it apart.")] = Adapter.merge,
    mtp: MtpOption = Mtp.keep,
    tensor_parallel: TensorParallel = 1,
    pipeline_parallel: PipelineParallel = 1,
    expert_parallel: ExpertParallel = 1,
    workers: Workers = 8,
    memory: Memory = "2GiB",
    shard_size: ShardSize = "5GB",
    resume: Resume = False,
    as_json: JsonOption = False,
) -> None:
    """Write a Hugging Face folder from a training.

    Example: finseek checkpoint export-hf runs/lora/train out --base DeepSeek-V3-bf16
    """
    from finseek.checkpoint import export_hf as export
    from finseek.checkpoint import megatron
    from finseek.core.errors import InputError

    kind = megatron.kind_of(source)
    if kind == "megatron":
        if base is None:
            raise InputError("a Megatron checkpoint holds no Hugging Face config: give the imported one with --base")
        sizes = _sizes(tensor_parallel, pipeline_parallel, expert_parallel)
        megatron.export_megatron(source, target, base, sizes)
    elif kind == "legacy":
        megatron.export_legacy(source, target)
    if kind is not None:
        say_once(f"{target}: written from {kind}")
        return
    with streaming(workers, memory, shard_size, resume=resume) as stream:
        done = export(source, target, base, adapter.value, mtp.value, stream, show(context, stream))
        tell(done, stream, as_json)


def _say(context: typer.Context, lines: str) -> None:
    from finseek.cli.terminal import say

    if not context.obj["quiet"]:
        say(lines)


def _sizes(tensor: int, pipeline: int, expert: int) -> MegatronOptions:
    from finseek.checkpoint.megatron import MegatronOptions

    return MegatronOptions(tensor, pipeline, expert)
