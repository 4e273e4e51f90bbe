"""Where the tokens of a batch stand, and which of them see each other.

B batch   T tokens   S tokens attended to
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finseek.core.errors import InputError


class Context(NamedTuple):
    """What attention and router know of the tokens of a batch.

    Attributes:
        positions: (B or 1, T).
        mask: who may be attended to, bool (B or 1, 1, T, S); None is causality alone.
        counted: tokens that are no padding, bool (B, T), for the loads of the experts; None: all.
    """

    positions: Tensor
    mask: Tensor | None = None
    counted: Tensor | None = None

    def rows(self, rows: slice) -> Context:
        """The context of some rows alone."""
        return Context(*(None if part is None else part[rows] if len(part) > 1 else part for part in self))

    def ahead(self, depth: int) -> Context:
        """The context of the tokens with one `depth` ahead: the last ones go, and one before padding does not count."""
        return Context(
            self.positions[:, :-depth],
            None if self.mask is None else self.mask[..., :-depth, :-depth],
            None if self.counted is None else self.counted[:, :-depth] & self.counted[:, depth:],
        )


def check_tokens(name: str, tokens: Tensor, vocab_size: int, also: int | None = None) -> None:
    """Refuse what is not (B, T) of token ids, or of `also`; values are looked at on a CPU alone, a GPU would wait.

    Raises:
        InputError: the shape, the dtype or a value.
    """
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.is_complex():
        raise InputError(f"{name}: {tokens.dtype} of shape {tuple(tokens.shape)} must be whole numbers (rows, tokens)")
    if tokens.device.type != "cpu" or type(tokens) is not Tensor:  # a fake tensor has no values
        return
    wrong = (tokens < 0) | (tokens >= vocab_size)
    wrong = wrong if also is None else wrong & (tokens != also)
    if bool(wrong.any()):
        rule = f"0..{vocab_size - 1}, the vocabulary" + ("" if also is None else f", or {also} for no loss")
        raise InputError(f"{name}: {int(tokens[wrong][0])} must be in {rule}")


def context_of(
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
) -> Context:
    """The context of rows (B, T) with padding (`attention_mask` 0) or packed documents (`segment_ids`)."""
    counted = None if attention_mask is None else attention_mask.bool()
    positions = default_positions(input_ids, attention_mask, segment_ids) if position_ids is None else position_ids
    if attention_mask is None and segment_ids is None:
        return Context(positions)
    T, device = input_ids.shape[1], input_ids.device
    seen = torch.ones(T, T, dtype=torch.bool, device=device).tril()[None]
    if counted is not None:
        seen = seen & counted[:, None]
    if segment_ids is not None:
        seen = seen & (segment_ids[:, :, None] == segment_ids[:, None])
    itself = torch.eye(T, dtype=torch.bool, device=device)  # a softmax over nothing would be NaN on padding
    return Context(positions, (seen | itself)[:, None], counted)


def default_positions(input_ids: Tensor, attention_mask: Tensor | None, segment_ids: Tensor | None) -> Tensor:
    """Positions (B or 1, T) counted from the first token of each row or segment; 0 on left padding."""
    index = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    if segment_ids is not None:
        starts = torch.ones_like(segment_ids, dtype=torch.bool)
        starts[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
        return index - (index * starts).cummax(dim=1).values
    if attention_mask is not None:
        return (attention_mask.cumsum(dim=1) - 1).clamp_min(0)
    return index
