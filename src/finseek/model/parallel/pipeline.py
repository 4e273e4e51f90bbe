"""Pipeline parallelism with torch's own schedules: each stage holds a run of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.pipelining.schedules import PipelineScheduleSingle

from finseek.model.context import context_of
from finseek.model.deepseek import DeepSeekV3
from finseek.model.rope import phasors

SCHEDULES: dict[str, type[PipelineScheduleSingle]] = {"1f1b": Schedule1F1B, "gpipe": ScheduleGPipe}


class Elsewhere(nn.Module):
    """A layer that another stage holds."""

    is_moe = False

    def forward(self, h: Tensor, *_: Any) -> tuple[Tensor, None]:
        """Leave h as it is."""
        return h, None


def stage_layers(layers: int, stages: int, stage: int) -> range:
    """The layers of a stage: as even as can be, the first stages one more where they don't divide."""
    size, more = divmod(layers, stages)
    first = stage * size + min(stage, more)
    return range(first, first + size + (stage < more))


def cut(model: DeepSeekV3, stages: int, stage: int) -> None:
    """Drop what stage `stage` does not hold; names of what remains stay as they were."""
    mine = stage_layers(model.config.num_hidden_layers, stages, stage)
    for layer in range(model.config.num_hidden_layers):
        if layer not in mine:
            model.model.layers[layer] = Elsewhere()
    if stage != 0:
        model.model.embed_tokens = nn.Identity()
    if stage != stages - 1:
        model.model.norm = nn.Identity()
        model.lm_head = nn.Identity()


class PipelineStageModel(nn.Module):
    """One stage: tokens (B, T) or hidden states (B, T, D) in, hidden states or logits (B, T, V) out."""

    def __init__(self, model: DeepSeekV3) -> None:
        super().__init__()
        self.whole = model

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, segment_ids: Tensor | None = None) -> Tensor:
        """Run this stage's layers; masks are as in `DeepSeekV3.forward`, given on every stage."""
        trunk = self.whole.model
        h = trunk.embed_tokens(x)
        context = context_of(x[:, :, 0] if x.dim() == 3 else x, attention_mask, segment_ids)
        phasor = phasors(self.whole.config, context.positions, h.dtype)
        for block in trunk.layers:
            h, _ = block(h, phasor, context.mask, context.counted)
        return self.whole.lm_head(trunk.norm(h))


def pipeline_schedule(
    model: DeepSeekV3,
    group: ProcessGroup,
    microbatches: int,
    shape: tuple[int, int],
    loss: Callable[[Tensor, Tensor], Tensor],
    schedule: str = "1f1b",
    prepare: Callable[[DeepSeekV3], object] | None = None,
) -> PipelineScheduleSingle:
    """Cut a model, made alike everywhere, to this process's stage, and schedule it.

    Args:
        model: changed in place.
        group: the processes of one pipeline.
        microbatches: into which each batch is split.
        shape: rows and tokens (b, T) of a microbatch. Without it torch would find the shapes by a run of the stages,
            whose tokens the routers would count.
        loss: of the last stage's logits (b, T, V) and targets, summed over microbatches: divide by the whole batch.
        schedule: `1f1b` or `gpipe`.
        prepare: further splitting of the cut model (`parallelize`).

    Returns:
        A schedule: `step(input_ids)` on the first stage, `step(target=labels, losses=[…])` on the last, `step()` else.
    """
    stages, stage = torch.distributed.get_world_size(group), torch.distributed.get_rank(group)
    weight, config = model.lm_head.weight, model.config
    tokens, hidden, logits = (
        torch.empty(*shape, dtype=torch.int64, device="meta"),
        torch.empty(*shape, config.hidden_size, dtype=weight.dtype, device="meta", requires_grad=True),
        torch.empty(*shape, config.vocab_size, dtype=weight.dtype, device="meta", requires_grad=True),
    )
    cut(model, stages, stage)
    if prepare is not None:
        prepare(model)
    part = PipelineStage(
        PipelineStageModel(model),
        stage,
        stages,
        weight.device,
        input_args=tokens if stage == 0 else hidden,
        output_args=logits if stage == stages - 1 else hidden,
        group=group,
    )
    return SCHEDULES[schedule](part, microbatches, loss_fn=loss, scale_grads=False)
