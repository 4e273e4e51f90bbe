"""Batches as tensors, and the global batches of a job, one a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from finseek.model.loss import IGNORED
from finseek.train.data import Batch, BatchPlan, TokenSet


class TensorBatch(NamedTuple):
    """A :class:`finseek.train.data.Batch` of tensors; ``mask`` is None where no row is padded.

    ``labels`` are the input ids, −100 on padding.
    """

    input_ids: Tensor
    mask: Tensor | None
    labels: Tensor
    weight: Tensor
    action: Tensor
    segments: Tensor | None = None


def tensors(batch: Batch) -> TensorBatch:
    """The same batch in torch."""
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    return TensorBatch(
        ids,
        None if mask.all() else mask,
        ids.masked_fill(~mask, IGNORED),
        torch.from_numpy(batch.weight),
        torch.from_numpy(batch.action),
        None if batch.segment_ids is None else torch.from_numpy(batch.segment_ids),
    )


class StepBatch(NamedTuple):
    """This process's forward passes of one step.

    Attributes:
        step: from 0.
        micro: the passes.
        total_weight: sum of loss weights over the global batch, the denominator of the loss.
        tokens: tokens of the global batch without padding.
    """

    step: int
    micro: list[TensorBatch]
    total_weight: float
    tokens: int


Lay = Callable[[TokenSet, NDArray[np.int64], NDArray[np.float32]], list[TensorBatch]]


class GlobalBatches(IterableDataset[StepBatch]):
    """The global batches of the steps ``first`` to ``end`` - 1.

    Args:
        plan: the samples of each step.
        training: the samples.
        weights: of the loss of each of their tokens.
        lay: this process's passes over some samples.
        first: step to begin with.
        end: step to end before.
    """

    def __init__(
        self, plan: BatchPlan, training: TokenSet, weights: NDArray[np.float32], lay: Lay, first: int, end: int
    ) -> None:
        self.plan, self.training, self.weights, self.lay = plan, training, weights, lay
        self.first, self.end = first, end

    def __len__(self) -> int:
        return self.end - self.first

    def __iter__(self) -> Iterator[StepBatch]:
        training = self.training
        by_sample = np.add.reduceat(self.weights.astype(np.float64), training.starts[:-1])
        for step, rows in self.plan.steps(self.first, self.end):
            total_weight, tokens = float(by_sample[rows].sum()), int(training.lengths[rows].sum())
            yield StepBatch(step, self.lay(training, rows, self.weights), total_weight, tokens)
