"""What a checkpoint is, from headers alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finseek.checkpoint.coverage import DEEPSEEK, coverage
from finseek.checkpoint.fp8 import FORMATS, SCALE_SUFFIX
from finseek.checkpoint.scales import block_size, faults
from finseek.checkpoint.shards import Checkpoint, read_checkpoint
from finseek.checkpoint.stream.ledger import LEDGER
from finseek.core.errors import ConfigError, InputError
from finseek.model import DeepSeekConfig


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is.

    Attributes:
        folder: where.
        model_type: as its config says, or None without one.
        precision: fp8 (block-wise, with scales), or the type of most of its bytes.
        shards: weight files.
        tensors: in all, scales included.
        nbytes: of all tensors.
        parameters: numbers in all tensors but scales.
        dtypes: header's type to (tensors, bytes).
        block: rows and columns of a scale's block, or None.
        scales: how many.
        layers: of the trunk, as the config says.
        mtp_layers: MTP layers whose tensors are there.
        mtp_depth: how many the config says.
        experts: routed experts of a layer, as the config says.
        missing: tensors that the config wants and the files lack.
        orphans: tensors that the config does not explain.
        faults: what else is wrong, one line each.
        notes: what is worth knowing and no fault.
    """

    folder: str
    model_type: str | None
    precision: str
    shards: int
    tensors: int
    nbytes: int
    parameters: int
    dtypes: dict[str, tuple[int, int]]
    block: tuple[int, int] | None
    scales: int
    layers: int | None
    mtp_layers: int | None
    mtp_depth: int | None
    experts: int | None
    missing: tuple[str, ...]
    orphans: tuple[str, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, superfluous or wrong."""
        return not (self.missing or self.orphans or self.faults)

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types."""
        return {**asdict(self), "complete": self.complete}


def inspect_checkpoint(src: str | Path) -> Inspection:
    """Read the headers of a checkpoint folder and say what it is and what is wrong with it.

    Raises:
        InputError: it is no checkpoint, or its files are damaged, truncated or disagree with the index.
    """
    return inspect_headers(read_checkpoint(src))


def inspect_headers(source: Checkpoint) -> Inspection:
    """As `inspect_checkpoint`, of headers that are read already."""
    config, tensors = source.config, source.tensors
    wrong: list[str] = []
    notes: list[str] = []
    count: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    parameters = 0
    for info in tensors.values():
        count[info.dtype] += 1
        nbytes[info.dtype] += info.nbytes
        if not info.name.endswith(SCALE_SUFFIX):
            size = 1
            for axis in info.shape:
                size *= axis
            parameters += size
    try:
        block = block_size(config)
        wrong += faults(source, block)
        if block is None and FORMATS.keys() & count.keys():
            wrong.append("FP8 weights, but config.json has no quantization_config with their weight_block_size")
    except InputError as error:
        block = None
        wrong.append(str(error))
    missing: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    deepseek = _config(config, wrong, notes)
    held = None
    if deepseek is not None:
        found = coverage(deepseek, {n: t.shape for n, t in tensors.items() if not n.endswith(SCALE_SUFFIX)})
        missing, orphans = found.missing, found.orphans
        wrong += [f"{n} has shape {list(is_)}, where the config says {list(due)}" for n, is_, due in found.misshapen]
        deepest = deepseek.num_hidden_layers + deepseek.num_nextn_predict_layers
        held = sum(f"model.layers.{n}.eh_proj.weight" in tensors for n in range(deepseek.num_hidden_layers, deepest))
    if source.total_size is not None and source.total_size != source.nbytes:
        notes.append(f"the index says total_size {source.total_size}, the files hold {source.nbytes} bytes of tensors")
    if (source.folder / LEDGER).is_file():
        notes.append(f"{LEDGER} is there: finseek checkpoint verify checks every byte")
    return Inspection(
        folder=str(source.folder),
        model_type=config.get("model_type"),
        precision="fp8" if FORMATS.keys() & count.keys() else max(nbytes, key=nbytes.__getitem__, default="").lower(),
        shards=len(source.shards),
        tensors=len(tensors),
        nbytes=source.nbytes,
        parameters=parameters,
        dtypes={dtype: (count[dtype], nbytes[dtype]) for dtype in sorted(count)},
        block=block,
        scales=sum(name.endswith(SCALE_SUFFIX) for name in tensors),
        layers=config.get("num_hidden_layers"),
        mtp_layers=held,
        mtp_depth=deepseek.num_nextn_predict_layers if deepseek else None,
        experts=deepseek.n_routed_experts if deepseek else None,
        missing=missing,
        orphans=orphans,
        faults=tuple(wrong),
        notes=tuple(notes),
    )


def _config(config: dict[str, Any], wrong: list[str], notes: list[str]) -> DeepSeekConfig | None:
    if config.get("model_type") not in DEEPSEEK:
        notes.append(f"model_type {config.get('model_type')!r} has no table of names: tensors are not held against it")
        return None
    try:
        return DeepSeekConfig.from_dict(config)
    except ConfigError as error:
        wrong.append(f"config.json: {error}")
        return None
