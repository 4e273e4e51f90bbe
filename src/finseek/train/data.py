"""Samples as arrays, and the batches of every step as a pure function of (seed, epoch, step).

n   samples                     B   rows of one batch
N   tokens of all samples       T   tokens of its longest row
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finseek.core.errors import InputError
from finseek.core.progress import Progress, silent
from finseek.samples import Encoder, Sample
from finseek.samples.token_cache import Tokens, encode_all, encode_file
from finseek.train.job import TrainJob
from finseek.train.options import LossWeights

ACTION = 1
POOL = 32
EMPTY_WIDTH = 8  # tokens of a batch without samples: enough for every head of a model to have something to do
Row = tuple[int, ...]  # the samples that share a row, in their order


@dataclass(frozen=True)
class Batch:
    """Rows of equal length, padded on the right.

    Attributes:
        input_ids: int64 (B, T).
        attention_mask: bool (B, T), False on padding.
        weight: float32 (B, T), the weight of the loss of predicting token t; 0 at t = 0 and on padding.
        action: bool (B, T), where token t belongs to the action.
        segment_ids: int64 (B, T), the place of token t's sample in its row; None where no row has several.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.bool_]
    weight: NDArray[np.float32]
    action: NDArray[np.bool_]
    segment_ids: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class TokenSet:
    """All samples of one file, concatenated.

    Attributes:
        tokens: int32 (N,).
        roles: int8 (N,), 0 prompt, 1 action, 2 rest of the answer.
        starts: int64 (n + 1,), sample i is ``tokens[starts[i]:starts[i + 1]]``.
        truncated: samples whose answer was cut.
    """

    tokens: NDArray[np.int32]
    roles: NDArray[np.int8]
    starts: NDArray[np.int64]
    truncated: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample, int64 (n,)."""
        return np.diff(self.starts)

    def token_weights(self, weights: LossWeights, answer_only: bool) -> NDArray[np.float32]:
        """Weight of the loss of each token, float32 (N,); the first token of a sample is never predicted."""
        by_role = np.array([0.0 if answer_only else weights.rest, weights.action, weights.rest], dtype=np.float32)
        result = by_role[self.roles]
        result[self.starts[:-1]] = 0
        return result

    def collate(
        self, rows: Sequence[Row | int], weights: NDArray[np.float32], pad_id: int, shape: tuple[int, int] | None = None
    ) -> Batch:
        """Lay samples into rows, padded to the longest, with the weights that :meth:`token_weights` gave.

        Args:
            rows: the sample of each row, or the samples; none at all gives one row of padding alone.
            weights: of every token of the set.
            pad_id: token of padding.
            shape: (B, T) to pad to instead.
        """
        packed = [row if isinstance(row, tuple) else (row,) for row in rows]
        longest = max((int(self.lengths[list(row)].sum()) for row in packed), default=EMPTY_WIDTH)
        shape = shape or (max(len(packed), 1), longest)
        ids = np.full(shape, pad_id, dtype=np.int64)
        mask, action = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        weight = np.zeros(shape, dtype=np.float32)
        segments = np.zeros(shape, dtype=np.int64)
        for place, row in enumerate(packed):
            at = 0
            for number, sample in enumerate(row):
                start, end = self.starts[sample], self.starts[sample + 1]
                here = slice(at, at := at + int(end - start))
                ids[place, here] = self.tokens[start:end]
                mask[place, here] = True
                weight[place, here] = weights[start:end]
                action[place, here] = self.roles[start:end] == ACTION
                segments[place, here] = number
            segments[place, at:] = len(row)
        shared = any(len(row) > 1 for row in packed)
        return Batch(ids, mask, weight, action, segments if shared else None)


def encode_samples(
    samples: Sequence[Sample], encoder: Encoder, seq_length: int, progress: Progress = silent
) -> TokenSet:
    """Encode samples once; the end of an answer that does not fit is cut, its action never.

    Raises:
        InputError: if there is no sample, or one whose prompt and action do not fit ``seq_length``.
    """
    return _token_set(encode_all(samples, encoder, seq_length, truncate=True, progress=progress))


def encode_samples_of(job: TrainJob, file: Path, progress: Progress = silent) -> TokenSet:
    """The samples of one file of a job; tokens that an earlier run of any settings made are read from ``cache/``.

    Raises:
        InputError: as :func:`encode_samples`.
    """
    length, cache = job.options.seq_length, job.output.parent / "cache"
    return _token_set(encode_file(file, job.tokenizer, job.template, length, cache, truncate=True, progress=progress))


def _token_set(tokens: Tokens) -> TokenSet:
    if not len(tokens):
        raise InputError("there are no samples to encode: look at the split certificate for what was dropped")
    return TokenSet(tokens.input_ids, tokens.role, tokens.starts, int(tokens.truncated.sum()))


@dataclass(frozen=True)
class BatchPlan:
    """Which samples each step trains on; step s needs nothing but s.

    Every epoch is a permutation of all samples from (seed, epoch). Pools of ``POOL`` batches are sorted by
    length, so that rows of a batch pad little, and the batches of the epoch are shuffled again. The last batch
    of an epoch may be smaller; the loss is a mean over its own tokens.

    Attributes:
        lengths: tokens of each sample, int64 (n,).
        global_batch_size: samples of a step.
        seed: of the order.
    """

    lengths: NDArray[np.int64]
    global_batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every sample once."""
        return -(-len(self.lengths) // self.global_batch_size)

    def epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """Samples of each step of an epoch (from 0), longest first within a step."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.lengths))
        pool = POOL * self.global_batch_size
        pools = (order[start : start + pool] for start in range(0, len(order), pool))
        by_length = np.concatenate([rows[np.argsort(-self.lengths[rows], kind="stable")] for rows in pools])
        steps = np.split(by_length, range(self.global_batch_size, len(by_length), self.global_batch_size))
        return [steps[place] for place in rng.permutation(len(steps))]

    def steps(self, first: int, end: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Steps ``first`` to ``end`` - 1 with their samples."""
        for epoch in range(first // self.steps_per_epoch, -(-end // self.steps_per_epoch)):
            before = epoch * self.steps_per_epoch
            for place, rows in enumerate(self.epoch(epoch)):
                if first <= before + place < end:
                    yield before + place, rows


def passes(
    rows: Iterable[int], lengths: NDArray[np.int64], size: int, packed: int = 0, rank: int = 0, replicas: int = 1
) -> list[list[Row]]:
    """The forward passes of one of ``replicas`` ranks for the samples of a step, each of at most ``size`` rows.

    Rank r takes samples r, r + replicas, … so that ranks see like lengths. Every rank gets the same number of
    passes, since collectives inside the model want that; a pass may be empty.

    Args:
        rows: samples, longest first.
        lengths: tokens of every sample.
        size: rows of one pass.
        packed: tokens that the samples of one row may have together; 0 gives each a row of its own.
        rank: which rank.
        replicas: how many there are.
    """
    order = list(rows)
    shares = [pack(order[each::replicas], lengths, packed) for each in range(replicas)]
    count = max(-(-len(share) // size) for share in shares)
    return [shares[rank][place * size : (place + 1) * size] for place in range(count)]


def pack(rows: Sequence[int], lengths: NDArray[np.int64], packed: int) -> list[Row]:
    """Samples into rows of at most ``packed`` tokens: each into the first row that has room for it."""
    if not packed:
        return [(int(row),) for row in rows]
    bins: list[list[int]] = []
    room: list[int] = []
    for row in map(int, rows):
        length = int(lengths[row])
        place = next((place for place, left in enumerate(room) if left >= length), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(packed)
        bins[place].append(row)
        room[place] -= length
    return [tuple(each) for each in bins]
