"""Back to a plain Hugging Face folder: from NeMo AutoModel, a training state, or an adapter, merged or kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finseek.checkpoint.dequantize import check_names, mtp_tensors
from finseek.checkpoint.fp8 import FORMATS
from finseek.checkpoint.layouts import from_layout
from finseek.checkpoint.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, Merge, delta_of, read_adapter
from finseek.checkpoint.names import copies_of, weights_of
from finseek.checkpoint.options import StreamOptions
from finseek.checkpoint.shards import CONFIG, SINGLE, Checkpoint, TensorInfo, read_checkpoint, read_json
from finseek.checkpoint.stream.destination import copy_others
from finseek.checkpoint.stream.job import Conversion, Job, Step, run
from finseek.checkpoint.stream.plan import Out
from finseek.checkpoint.stream.transforms import Copy, Look
from finseek.checkpoint.stream.workers import Task
from finseek.core.artifacts import atomic_file, atomic_folder, write_json
from finseek.core.errors import InputError
from finseek.core.progress import Progress, silent
from finseek.model import DeepSeekConfig

if TYPE_CHECKING:
    from torch import Tensor

STATE_SUFFIXES = (".ckpt", ".pt")
TEXTS = (".json", ".py", ".txt", ".model", ".jinja")


def export_hf(
    src: str | Path,
    dst: str | Path,
    base: str | Path | None = None,
    adapter: str = "merge",
    stream: StreamOptions | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Write a Hugging Face folder.

    Args:
        src: an AutoModel checkpoint (its root, a step of it, or its consolidated model), a Hugging Face folder, a PEFT
            adapter folder, or the state of a training run of finseek or Lightning (`.ckpt`, `.pt`).
        dst: a new folder.
        base: the checkpoint that training began from: needed for an adapter, a training state, and the MTP layers
            that AutoModel leaves out; tokenizer and code files that `src` lacks come from it.
        adapter: merge it into the base, or keep it as an adapter folder.
        stream: how the bytes flow.
        progress: told of bytes.

    Raises:
        InputError: the source is none of these, something is missing, or the names do not fit the config.
    """
    stream, src, dst = stream or StreamOptions(), Path(src), Path(dst)
    if adapter not in ("merge", "keep"):
        raise InputError(f"adapter {adapter!r} is none of merge, keep")
    if src.is_file() and src.suffix in STATE_SUFFIXES:
        return _from_state(src, dst, _needed(base, "a training state holds no config"))
    folder = find_model(src)
    if (folder / ADAPTER_CONFIG).is_file():
        trunk = _needed(base, "an adapter is no model without it")
        if adapter == "keep":
            return _keep_adapter(folder, dst, trunk)
        return run(_job(read_checkpoint(trunk), dst, stream, read_adapter(folder)), progress)
    source = read_checkpoint(folder)
    if base is not None:
        source = with_mtp_of(source, read_checkpoint(base))
    done = run(_job(source, dst, stream, None), progress)
    if base is not None and stream.rank == 0:
        _complete(Path(base), dst)
    return done


def find_model(src: Path) -> Path:
    """The folder with weights or adapter in an AutoModel checkpoint, by its own pointers; any other folder is itself.

    Raises:
        InputError: there is none.
    """
    for place in (src, src / "LATEST"):
        for folder in (place / "model" / "consolidated", place / "model", place):
            if (folder / CONFIG).is_file() or (folder / ADAPTER_CONFIG).is_file():
                return folder
    if (src / "model").is_dir():
        raise InputError(f"{src}: not consolidated; train with checkpoint.save_consolidated: final, or consolidate it")
    raise InputError(f"{src}: no {CONFIG} and no {ADAPTER_CONFIG} there, in model/ or in model/consolidated/")


def with_mtp_of(source: Checkpoint, base: Checkpoint) -> Checkpoint:
    """A checkpoint whose MTP layers, if it has none, are the base's, with the trained embedding and head in them."""
    mtp = mtp_tensors(base)
    if not mtp or mtp_tensors(source):
        return source
    quantized = [name for name in mtp if base.tensors[name].dtype in FORMATS]
    if quantized:
        raise InputError(f"{base.folder}: {quantized[0]} is FP8; dequantize the base first")
    moved = {name: _elsewhere(base, base.tensors[name]) for name in base.tensors if name in mtp}
    for name, (_, own) in copies_of(DeepSeekConfig.from_dict(base.config)).items():
        if name in moved:
            moved[name] = replace(source.tensors[own], name=name)
    config = {**source.config, "num_nextn_predict_layers": base.config["num_nextn_predict_layers"]}
    lengths = {**source.shards, **{str(base.folder / name): size for name, size in base.shards.items()}}
    hashes = {**source.header_hashes, **{str(base.folder / n): digest for n, digest in base.header_hashes.items()}}
    return replace(source, config=config, tensors={**source.tensors, **moved}, shards=lengths, header_hashes=hashes)


def _elsewhere(checkpoint: Checkpoint, info: TensorInfo) -> TensorInfo:
    """The tensor with the whole path of its file: it is read from another folder than the others."""
    return replace(info, shard=str((checkpoint.folder / info.shard).resolve()))


def _job(source: Checkpoint, dst: Path, stream: StreamOptions, adapter: Adapter | None) -> Job:
    check_names(source)
    held = [info.name for info in source.tensors.values() if info.dtype in FORMATS]
    if held:
        raise InputError(f"{source.folder}: {held[0]} is FP8; dequantize the checkpoint first")
    config = DeepSeekConfig.from_dict(source.config)
    weights = {weight.name: weight for weight in weights_of(config)}
    steps, used = [], set()
    for info in source.tensors.values():
        rule: Look = Copy(info, stop=False)
        delta = delta_of(adapter, weights[info.name]) if adapter and info.name in weights else None
        if delta is not None:
            used.add(delta[0])
            rule = Merge(info, False, *delta[1:])
        steps.append(Step(Task(info, rule, 1), (Out(info.name, info.dtype, info.shape),)))
    spare = sorted(adapter.pairs.keys() - used) if adapter else []
    if spare:
        raise InputError(f"{source.folder} has no {spare[0]}, which the adapter changes ({len(spare)} such)")
    settings: dict[str, Any] = {"adapter": None if adapter is None else _digest(adapter)}
    return Job("export", source, dst, steps, source.config, settings, False, 0, stream)


def _digest(adapter: Adapter) -> str:
    import hashlib

    digest = hashlib.sha256(repr(adapter.scale).encode())
    for name in sorted(adapter.pairs):
        for matrix in adapter.pairs[name]:
            digest.update(name.encode() + matrix.tobytes())
    return digest.hexdigest()


def _needed(base: str | Path | None, why: str) -> Path:
    if base is None:
        raise InputError(f"{why}: give the checkpoint that training began from with --base")
    return Path(base)


def _complete(base: Path, dst: Path) -> None:
    """Tokenizer and code files of the base that the new folder lacks."""
    for path in base.iterdir():
        if (
            path.is_file()
            and not (dst / path.name).exists()
            and path.suffix in (".json", ".py", ".txt", ".model", ".jinja")
        ):
            if path.name.endswith(".index.json"):
                continue
            with atomic_file(dst / path.name) as partial:
                shutil.copyfile(path, partial)


def _keep_adapter(folder: Path, dst: Path, base: Path) -> Conversion:
    """The adapter's two files, pointing at the base."""
    adapter = read_adapter(folder)
    with atomic_folder(dst) as partial:
        shutil.copyfile(folder / ADAPTER_WEIGHTS, partial / ADAPTER_WEIGHTS)
        config = {**read_json(folder / ADAPTER_CONFIG), "base_model_name_or_path": str(base.resolve())}
        write_json(partial / ADAPTER_CONFIG, config)
        copy_others(base, partial)
    size = sum(a.nbytes + b.nbytes for a, b in adapter.pairs.values())
    return Conversion(dst, 2 * len(adapter.pairs), size, 1, 0, 0)


def _from_state(file: Path, dst: Path, base: Path) -> Conversion:
    """Weights out of a training state in memory, under finseek's names."""
    import torch
    from safetensors.torch import save_file

    raw = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    state = next((raw[key] for key in ("state_dict", "model") if isinstance(raw.get(key), Mapping)), None)
    if state is None:
        raise InputError(f"{file}: neither state_dict nor model in it; it is no training state of Lightning or finseek")
    config = DeepSeekConfig.from_json(base)
    tensors = dict(from_layout(_without_prefix(state), config, "finseek"))
    total = sum(tensor.nbytes for tensor in tensors.values())
    with atomic_folder(dst) as partial:
        copy_others(base, partial)
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial / SINGLE, metadata={"format": "pt"})
        dtype = str(tensors["model.embed_tokens.weight"].dtype).removeprefix("torch.")
        write_json(partial / CONFIG, {**config.to_json_dict(), "torch_dtype": dtype})
    return Conversion(dst, len(tensors), total, 1, 0, 0)


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Lightning puts the attribute's name before the module's own: `model.model.layers…`, `model.lm_head…`."""
    wrapped = "model.model.embed_tokens.weight" in state
    return {name.removeprefix("model.") if wrapped else name: value for name, value in state.items()}
