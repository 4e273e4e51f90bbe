"""A checkpoint's names and shapes held against its config, both ways, by the table of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from finseek.checkpoint.fp8 import SCALE_SUFFIX
from finseek.checkpoint.names import IGNORED, copies_of, weights_of
from finseek.checkpoint.shards import Checkpoint
from finseek.core.errors import InputError
from finseek.model import DeepSeekConfig

DEEPSEEK = ("deepseek_v2", "deepseek_v3")  # the values of model_type that the table is of
LAYER = re.compile(r"^model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Coverage:
    """A checkpoint's names held against its config, both ways.

    Attributes:
        missing: expected and not there.
        orphans: there and without a place.
        misshapen: name, shape there, shape expected.
    """

    missing: tuple[str, ...]
    orphans: tuple[str, ...]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    def __bool__(self) -> bool:
        return not (self.missing or self.orphans or self.misshapen)

    def lines(self) -> list[str]:
        """One line for each fault."""
        return [
            *(f"missing {name}" for name in self.missing),
            *(f"orphan {name}, which no row of the table of names explains" for name in self.orphans),
            *(f"{name} has shape {list(is_)}, where the config says {list(due)}" for name, is_, due in self.misshapen),
        ]


def coverage(config: DeepSeekConfig, shapes: Mapping[str, tuple[int, ...]], mtp: bool = True) -> Coverage:
    """Compare Hugging Face names and shapes (scales left out) with those of the config."""
    due = {weight.name: weight.shape for weight in weights_of(config, mtp)}
    optional = {name: weight.shape for name, (weight, _) in copies_of(config, mtp).items()}
    if config.tie_word_embeddings:
        optional["lm_head.weight"] = due["model.embed_tokens.weight"]
    known = due | optional
    return Coverage(
        tuple(name for name in due if name not in shapes),
        tuple(name for name in shapes if name not in known and not IGNORED.search(name)),
        tuple((name, shape, known[name]) for name, shape in shapes.items() if name in known and known[name] != shape),
    )


def mtp_tensors(source: Checkpoint) -> set[str]:
    """Tensors of layers behind the trunk's last, by the depth in the config.

    Raises:
        InputError: the config does not say how many layers the trunk has.
    """
    layers = source.config.get("num_hidden_layers")
    if type(layers) is not int:
        raise InputError(f"{source.folder}: config.json has no num_hidden_layers, so MTP layers cannot be told apart")
    return {name for name in source.tensors if (found := LAYER.match(name)) and int(found[1]) >= layers}


def check_names(source: Checkpoint) -> None:
    """Hold the names of a DeepSeek checkpoint against its config; other models are taken as they are.

    Raises:
        InputError: a tensor is missing, has no place, or not the config's shape.
    """
    if source.config.get("model_type") not in DEEPSEEK:
        return
    config = DeepSeekConfig.from_dict(source.config)
    shapes = {name: info.shape for name, info in source.tensors.items() if not name.endswith(SCALE_SUFFIX)}
    faults = coverage(config, shapes).lines()
    if faults:
        listed = "; ".join(faults[:10]) + ("; …" if len(faults) > 10 else "")
        raise InputError(f"{source.folder}: {len(faults)} tensors do not fit its config.json: {listed}")
