"""Tensors from Hugging Face's layout into another and back, by the table of names; nothing is computed, only moved.

Both directions work on a mapping of names to torch tensors and give views where they can.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from finseek.checkpoint.names import IGNORED, LAYOUTS, Place, Weight, copies_of, weights_of
from finseek.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from finseek.model import DeepSeekConfig


def placed(config: DeepSeekConfig, layout: str, mtp: bool = True) -> dict[str, list[tuple[Weight, Place]]]:
    """What each tensor of a layout is made of: Hugging Face's weights and their places, by the layout's name.

    Raises:
        InputError: unknown layout, or a weight that the layout has no place for.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is none of {', '.join(LAYOUTS)}")
    table: dict[str, list[tuple[Weight, Place]]] = {}
    homeless = []
    for weight in weights_of(config, mtp):
        place = weight.place(layout)
        if place is None:
            homeless.append(weight.name)
        else:
            table.setdefault(place.name, []).append((weight, place))
    if homeless:
        raise InputError(
            f"{layout} has no place for {len(homeless)} weights, first {homeless[0]}; an MTP layer can be left out "
            "with mtp drop"
        )
    return table


def homeless(config: DeepSeekConfig, layout: str) -> list[str]:
    """Hugging Face's names of weights that a layout has no place for (AutoModel 0.7: the MTP layers)."""
    return [weight.name for weight in weights_of(config) if weight.place(layout) is None]


def to_layout(
    tensors: Mapping[str, Tensor], config: DeepSeekConfig, layout: str, mtp: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a layout, one by one, made of Hugging Face's.

    Raises:
        InputError: a tensor is missing, or there is one that no row explains.
    """
    import torch

    table = placed(config, layout, mtp)
    due = {weight.name for made_of in table.values() for weight, _ in made_of}
    spare = copies_of(config).keys() | ({"lm_head.weight"} if config.tie_word_embeddings else set())
    if not mtp:
        spare |= {weight.name for weight in weights_of(config)} - due
    _reconcile(due, tensors.keys(), spare)
    for name, made_of in table.items():
        by_expert: dict[int, list[tuple[Place, Tensor]]] = {}
        for weight, place in made_of:
            value = tensors[weight.name]
            by_expert.setdefault(weight.expert, []).append((place, value.T if place.transposed else value))
        whole = []
        for pieces in by_expert.values():
            pieces.sort(key=lambda piece: piece[0].part or (0, 1))
            axis = -1 if pieces[0][0].transposed else 0
            whole.append(torch.cat([value for _, value in pieces], dim=axis) if len(pieces) > 1 else pieces[0][1])
        yield name, torch.stack(whole) if made_of[0][1].stacked else whole[0]


def from_layout(
    tensors: Mapping[str, Tensor], config: DeepSeekConfig, layout: str, mtp: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """Hugging Face's tensors, one by one, as views of a layout's.

    Raises:
        InputError: a tensor is missing, there is one that no row explains, or one is of another shape.
    """
    table = placed(config, layout, mtp)
    _reconcile(table.keys(), tensors.keys(), {"lm_head.weight"} if config.tie_word_embeddings else set())
    for name, made_of in table.items():
        for weight, place in made_of:
            value = tensors[name]
            value = value[weight.expert] if place.stacked else value
            value = value.T if place.transposed else value
            if place.part is not None:
                value = value.chunk(place.part[1])[place.part[0]]
            if tuple(value.shape) != weight.shape:
                raise InputError(f"{name} gives {weight.name} the shape {tuple(value.shape)}, not {weight.shape}")
            yield weight.name, value


def _reconcile(due: Iterable[str], there: Iterable[str], spare: Iterable[str]) -> None:
    """Every name on both sides is accounted for."""
    due, there = set(due), set(there)
    missing = sorted(due - there)
    orphans = sorted(name for name in there - due - set(spare) if not IGNORED.search(name))
    if missing or orphans:
        lines = [f"missing {name}" for name in missing] + [f"orphan {name}" for name in orphans]
        listed = "; ".join(lines[:10]) + ("; …" if len(lines) > 10 else "")
        raise InputError(f"{len(lines)} names do not fit the table: {listed}")
