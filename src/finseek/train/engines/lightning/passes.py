"""The forward and backward passes of one step: of a whole model, or of one stage of a pipeline.

b rows of a pass   T tokens   V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from finseek.model import DeepSeekV3
from finseek.model.loss import IGNORED, Targets, next_token_loss
from finseek.model.parallel import pipeline_schedule
from finseek.train.engines.batches import TensorBatch
from finseek.train.engines.lightning.place import Place

# What the passes of a step sum up to; the last is whether a process was asked to stop.
FIGURES = ("loss_sum", "action_sum", "action_count", "mtp_loss", "balance_loss", "asked")
Backward = Callable[[Tensor], None]


class Passes(Protocol):
    """How the batches of a step go through the model."""

    @property
    def shape(self) -> tuple[int, int] | None:
        """(b, T) that every batch must have; None takes any."""

    def train(self, batches: Sequence[TensorBatch], total_weight: float, backward: Backward) -> Tensor:
        """Add to the gradients; returns this process's part of ``FIGURES``, float64."""

    def validate(self, batches: Sequence[TensorBatch]) -> Tensor:
        """This process's part of Σ w·nll, Σ nll of action tokens, float64 (2,)."""


class WholePasses:
    """Of a model whose layers are all here, split or not."""

    shape = None

    def __init__(self, model: DeepSeekV3) -> None:
        self.model = model

    def train(self, batches: Sequence[TensorBatch], total_weight: float, backward: Backward) -> Tensor:
        """One pass after the other."""
        figures = torch.zeros(len(FIGURES), dtype=torch.float64, device=batches[0].input_ids.device)
        for batch in batches:
            out = self.model(
                batch.input_ids,
                batch.mask,
                batch.labels,
                segment_ids=batch.segments,
                loss_weights=batch.weight,
                loss_denominator=total_weight,
                return_logits=False,
            )
            backward(out.loss)
            nll = out.token_loss.double()
            figures[0] += (nll * batch.weight).sum()
            figures[1] += (nll * batch.action).sum()
            figures[2] += batch.action.sum()
            for place, loss in ((3, out.mtp_loss), (4, out.balance_loss)):
                figures[place] += 0.0 if loss is None else loss.detach().double()
        return figures

    def validate(self, batches: Sequence[TensorBatch]) -> Tensor:
        """One pass after the other."""
        sums = torch.zeros(2, dtype=torch.float64, device=batches[0].input_ids.device)
        for batch in batches:
            out = self.model(batch.input_ids, batch.mask, batch.labels, segment_ids=batch.segments, return_logits=False)
            nll = out.token_loss.double()
            sums += torch.stack([(nll * batch.weight).sum(), (nll * batch.action).sum()])
        return sums


class PipelinePasses:
    """Of one stage; every step has the same number of passes, of the same shape."""

    def __init__(self, place: Place, passes: int, shape: tuple[int, int]) -> None:
        assert place.mesh is not None
        self.shape, self.count = shape, passes
        self.stage, self.stages = place.mesh.get_local_rank("pp"), place.mesh.shape[0]
        self.figures = torch.zeros(len(FIGURES), dtype=torch.float64)
        self.schedule = pipeline_schedule(
            place.model, place.mesh.get_group("pp"), passes, shape, self._loss, prepare=place.split
        )

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Of one pass; target (b, T, 3) holds labels, weights as parts of the whole, and what belongs to the action."""
        labels, share, action = target[..., 0].long(), target[..., 1], target[..., 2]
        found = next_token_loss(None, None, Targets(labels, None, share, 1.0), 1, logits)
        nll = found.by_label.double()
        self.figures[0] += (nll * share).sum().cpu()
        self.figures[1] += (nll * action).sum().cpu()
        self.figures[2] += action.sum().cpu()
        return found.mean

    def train(self, batches: Sequence[TensorBatch], total_weight: float, backward: Backward) -> Tensor:
        """All passes at once, as the schedule has them."""
        figures = self._run(batches, total_weight, train=True)
        figures[0] *= total_weight
        return figures

    def validate(self, batches: Sequence[TensorBatch]) -> Tensor:
        """As many rounds of the schedule as it takes."""
        rounds = range(0, len(batches), self.count)
        return torch.stack([self._run(batches[k : k + self.count], 1.0, train=False)[:2] for k in rounds]).sum(dim=0)

    def _run(self, batches: Sequence[TensorBatch], total_weight: float, *, train: bool) -> Tensor:
        self.figures.zero_()
        step = self.schedule.step if train else self.schedule.eval
        filled = [*batches, *[blank(batches[0])] * (self.count - len(batches))]
        masks = [torch.ones_like(b.input_ids, dtype=torch.bool) if b.mask is None else b.mask for b in filled]
        given = {"attention_mask": torch.cat(masks)}
        if self.stage == self.stages - 1:
            parts = [torch.stack([b.labels.double(), b.weight / total_weight, b.action.double()], -1) for b in filled]
            given["target"] = torch.cat(parts)
        ids = (torch.cat([b.input_ids for b in filled]),) if self.stage == 0 else ()
        step(*ids, **given)
        return self.figures.to(batches[0].input_ids.device, copy=True)


def blank(batch: TensorBatch) -> TensorBatch:
    """A batch of the same shape from which nothing is learned."""
    ids = torch.zeros_like(batch.input_ids)
    nothing = torch.zeros_like(ids, dtype=torch.bool)
    return TensorBatch(ids, nothing, torch.full_like(ids, IGNORED), torch.zeros_like(batch.weight), nothing)
