"""The samples of each step as AutoModel's dataset: the same rows in the same order as every other engine's.

AutoModel wants steps of equal size, rows dealt round its replicas, and labels that are shifted already. So a step is
`slots` rows, and what the plan does not fill is an empty row, all of it padding. The last token of a row predicts
nothing, but goes through the experts as in every engine, since their load is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from finseek.model.loss import IGNORED
from finseek.train.data import BatchPlan, TokenSet
from finseek.train.options import LossWeights

TRAINING, VALIDATION = "training", "validation"
EMPTY = -1


def write_arrays(folder: Path, samples: TokenSet, answer_only: bool) -> None:
    """Write tokens, places and labels (−100 where a token is not learned) as arrays that processes map."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = samples.token_weights(LossWeights(), answer_only)
    np.save(folder / "tokens.npy", samples.tokens)
    np.save(folder / "labels.npy", np.where(weights > 0, samples.tokens, IGNORED).astype(np.int32))
    np.save(folder / "starts.npy", samples.starts)


class Rows(Dataset[dict[str, NDArray[np.int32]]]):
    """Rows in the order in which they are wanted, ``EMPTY`` where there is none."""

    def __init__(self, folder: str, order: NDArray[np.int64]) -> None:
        names = ("tokens", "labels", "starts")
        self.tokens, self.labels, self.starts = (np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in names)
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> dict[str, NDArray[np.int32]]:
        row = self.order[place]
        if row == EMPTY:
            nothing = np.zeros(0, np.int32)
            return {"input_ids": nothing, "labels": nothing}
        start, end = self.starts[row], self.starts[row + 1]
        labels = np.append(self.labels[start + 1 : end], np.int32(IGNORED))
        return {"input_ids": self.tokens[start:end], "labels": labels}


def training_rows(folder: str, seed: int, global_batch_size: int, steps: int, slots: int) -> Rows:
    """The rows of all steps, one after another, each of ``slots``."""
    starts = np.load(Path(folder) / "starts.npy")
    plan = BatchPlan(np.diff(starts), global_batch_size, seed)
    order = np.full((steps, slots), EMPTY, np.int64)
    for step, rows in plan.steps(0, steps):
        order[step, : len(rows)] = rows
    return Rows(folder, order.reshape(-1))


def validation_rows(folder: str, multiple: int) -> Rows:
    """All rows, longest first, filled up to a multiple."""
    lengths = np.diff(np.load(Path(folder) / "starts.npy"))
    order = np.argsort(-lengths, kind="stable")
    return Rows(folder, np.concatenate([order, np.full(-len(order) % multiple, EMPTY)]))


def collate(rows: Sequence[dict[str, NDArray[np.int32]]], pad_id: int, multiple: int = 1) -> dict[str, Any]:
    """Pad on the right; causal attention needs no mask there, but experts count no padding.

    Args:
        rows: of one forward pass.
        pad_id: token of the padding.
        multiple: of which the length is made.
    """
    longest = -(-max(1, *(len(row["input_ids"]) for row in rows)) // multiple) * multiple
    ids = np.full((len(rows), longest), pad_id, np.int64)
    labels = np.full((len(rows), longest), IGNORED, np.int64)
    padding = np.ones((len(rows), longest), bool)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[place, :length], labels[place, :length] = row["input_ids"], row["labels"]
        padding[place, :length] = False
    batch = {"input_ids": ids, "labels": labels, "padding_mask": padding}
    return {name: torch.from_numpy(value) for name, value in batch.items()}
