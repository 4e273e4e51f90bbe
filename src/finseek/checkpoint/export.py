"""Back to a plain Hugging Face folder: from NeMo AutoModel, a training state, or an adapter, merged or kept."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs

from finseek.checkpoint.coverage import check_names, mtp_tensors
from finseek.checkpoint.fp8 import FORMATS
from finseek.checkpoint.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, Merge, delta_of, read_adapter
from finseek.checkpoint.names import copies_of, weights_of
from finseek.checkpoint.options import StreamOptions
from finseek.checkpoint.shards import CONFIG, Checkpoint, TensorInfo, read_checkpoint, read_json
from finseek.checkpoint.state import adapter_of_state, holds_adapter, read_state, write_state
from finseek.checkpoint.stream.destination import copy_others, refuse_used
from finseek.checkpoint.stream.job import Conversion, Job, Step, run, unchanged
from finseek.checkpoint.stream.plan import Out
from finseek.checkpoint.stream.workers import Task
from finseek.core.artifacts import atomic_file, atomic_folder, write_json
from finseek.core.errors import InputError
from finseek.core.progress import Progress, silent
from finseek.model import DeepSeekConfig

STATE_SUFFIXES = (".ckpt", ".pt")
TEXTS = (".json", ".py", ".txt", ".model", ".jinja")


def export_hf(
    src: str | Path,
    dst: str | Path,
    base: str | Path | None = None,
    adapter: str = "merge",
    mtp: str = "keep",
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
        mtp: keep or drop the MTP layers.
        stream: how the bytes flow.
        progress: told of bytes.

    Raises:
        InputError: the source is none of these, something is missing, or the names do not fit the config.
    """
    stream, src, dst = stream or StreamOptions(), Path(src), Path(dst)
    for name, value, allowed in (("adapter", adapter, ("merge", "keep")), ("mtp", mtp, ("keep", "drop"))):
        if value not in allowed:
            raise InputError(f"{name} {value!r} is none of {', '.join(allowed)}")
    state = src.is_file() and src.suffix in STATE_SUFFIXES
    if stream.world > 1 and (state or adapter == "keep"):
        raise InputError(f"{src}: a training state or a kept adapter is written by one process: run without torchrun")
    if state:
        return _from_state(src, dst, _needed(base, "a training state holds no config"), adapter, mtp, stream, progress)
    folder = find_model(src)
    if (folder / ADAPTER_CONFIG).is_file():
        trunk = _needed(base, "an adapter is no model without it")
        if adapter == "keep":
            return _keep_adapter(folder, dst, trunk)
        source = read_checkpoint(trunk)
        source = without_mtp(source) if mtp == "drop" else source
        return run(_job(source, dst, stream, read_adapter(folder)), progress)
    source = read_checkpoint(folder)
    if mtp == "drop":
        source = without_mtp(source)
    elif base is not None:
        source = with_mtp_of(source, read_checkpoint(base))
    elif source.config.get("num_nextn_predict_layers") and not mtp_tensors(source):
        raise InputError(
            f"{folder}: the MTP layers of its config.json are not there, for AutoModel leaves them out: give the "
            "checkpoint that training began from with --base, or leave them out with --mtp drop"
        )
    done = run(_job(source, dst, stream, None), progress)
    if base is not None and stream.rank == 0:
        _complete(Path(base), dst)
    return done


def find_model(src: Path) -> Path:
    """The folder with weights or adapter in an AutoModel checkpoint, by its own pointers; any other folder is itself.

    Raises:
        InputError: there is none.
    """
    text = src / "LATEST.txt"  # in place of the link, where the file system has none
    latest = src / text.read_text().strip() if text.is_file() else src / "LATEST"
    for place in (src, latest):
        for folder in (place / "model" / "consolidated", place / "model", place):
            if (folder / CONFIG).is_file() or (folder / ADAPTER_CONFIG).is_file():
                return folder
    if (src / "model").is_dir():
        raise InputError(f"{src}: not consolidated; train with checkpoint.save_consolidated: final, or consolidate it")
    raise InputError(f"{src}: no {CONFIG} and no {ADAPTER_CONFIG} there, in model/ or in model/consolidated/")


def without_mtp(source: Checkpoint) -> Checkpoint:
    """A checkpoint without MTP layers."""
    mtp = mtp_tensors(source)
    tensors = {name: info for name, info in source.tensors.items() if name not in mtp}
    return replace(source, config={**source.config, "num_nextn_predict_layers": 0}, tensors=tensors)


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
            own = own if own in source.tensors else "model.embed_tokens.weight"  # a head that is tied to it
            moved[name] = structs.replace(source.tensors[own], name=name)
    config = {**source.config, "num_nextn_predict_layers": base.config["num_nextn_predict_layers"]}
    lengths = {**source.shards, **{str(base.folder / name): size for name, size in base.shards.items()}}
    hashes = {**source.header_hashes, **{str(base.folder / n): digest for n, digest in base.header_hashes.items()}}
    return replace(source, config=config, tensors={**source.tensors, **moved}, shards=lengths, header_hashes=hashes)


def _elsewhere(checkpoint: Checkpoint, info: TensorInfo) -> TensorInfo:
    """The tensor with the whole path of its file: it is read from another folder than the others."""
    return structs.replace(info, shard=str((checkpoint.folder / info.shard).resolve()))


def _job(source: Checkpoint, dst: Path, stream: StreamOptions, adapter: Adapter | None) -> Job:
    check_names(source)
    held = [info.name for info in source.tensors.values() if info.dtype in FORMATS]
    if held:
        raise InputError(f"{source.folder}: {held[0]} is FP8; dequantize the checkpoint first")
    config = DeepSeekConfig.from_dict(source.config)
    weights = {weight.name: weight for weight in weights_of(config)}
    steps, used = [], set()
    for info in source.tensors.values():
        delta = delta_of(adapter, weights[info.name]) if adapter and info.name in weights else None
        if delta is None:
            steps.append(unchanged(info))
        else:
            used.add(delta[0])
            merge = Merge(info, False, *delta[1:])
            steps.append(Step(Task(info, merge, 1), (Out(info.name, info.dtype, info.shape),)))
    spare = sorted(adapter.pairs.keys() - used) if adapter else []
    if spare:
        raise InputError(f"{source.folder} has no {spare[0]}, which the adapter changes ({len(spare)} such)")
    settings: dict[str, Any] = {
        "adapter": None if adapter is None else _digest(adapter),
        "mtp": config.num_nextn_predict_layers,
    }
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
        text = path.is_file() and path.suffix in TEXTS and not path.name.endswith(".index.json")
        if text and not (dst / path.name).exists():
            with atomic_file(dst / path.name) as partial:
                shutil.copyfile(path, partial)


def _keep_adapter(folder: Path, dst: Path, base: Path) -> Conversion:
    """The adapter's two files, pointing at the base."""
    adapter = read_adapter(folder)
    refuse_used(dst)
    with atomic_folder(dst) as partial:
        shutil.copyfile(folder / ADAPTER_WEIGHTS, partial / ADAPTER_WEIGHTS)
        config = {**read_json(folder / ADAPTER_CONFIG), "base_model_name_or_path": str(base.resolve())}
        write_json(partial / ADAPTER_CONFIG, config)
        copy_others(base, partial)
    size = sum(a.nbytes + b.nbytes for a, b in adapter.pairs.values())
    return Conversion(dst, 2 * len(adapter.pairs), size, 1, 0, 0)


def _from_state(
    file: Path, dst: Path, base: Path, adapter: str, mtp: str, stream: StreamOptions, progress: Progress
) -> Conversion:
    """A training state: all weights under finseek's names, or the matrices of an adapter under PEFT's."""
    state = read_state(file)
    if not holds_adapter(state):
        return write_state(state, dst, base, mtp == "keep", stream)
    with tempfile.TemporaryDirectory(prefix="finseek-adapter-") as folder:
        adapter_of_state(file, state, Path(folder))
        return export_hf(folder, dst, base, adapter, mtp, stream, progress)
