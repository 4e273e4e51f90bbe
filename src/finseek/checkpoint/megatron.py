"""To and from Megatron: a thin adapter on Megatron-Bridge, and on the last NeMo toolkit for legacy `.nemo` folders.

Neither can be installed where this package is tested; each call below is bound in a test against the signatures in the
published wheels. Variables are named for what they hold (`bridge`: AutoBridge, `provider`: its model provider, `llm`:
nemo.collections.llm), which is how that test knows whose signature to bind.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finseek.checkpoint.fp8 import FORMATS
from finseek.checkpoint.shards import read_checkpoint
from finseek.core.errors import ConfigError, InputError
from finseek.model import DeepSeekConfig


@dataclass(frozen=True)
class MegatronOptions:
    """How Megatron-Core is to share the model.

    Attributes:
        tensor_model_parallel_size: processes that share each matrix.
        pipeline_model_parallel_size: stages.
        expert_model_parallel_size: processes that share the routed experts.
    """

    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    expert_model_parallel_size: int = 1

    def sizes(self) -> dict[str, int]:
        """The sizes under Megatron's names."""
        return {
            "tensor_model_parallel_size": self.tensor_model_parallel_size,
            "pipeline_model_parallel_size": self.pipeline_model_parallel_size,
            "expert_model_parallel_size": self.expert_model_parallel_size,
        }


# kind: (module that must be there, what to do about it)
NEEDS = {
    "megatron": (
        "megatron.bridge",
        "Python 3.12, Transformer Engine and a GPU: run this in NVIDIA's NeMo container, or there pip install "
        "megatron-bridge==0.6.2",
    ),
    "legacy": (
        "nemo.collections.llm",
        "nemo-toolkit 2.7.3, the last with .nemo language models: run this in NVIDIA's NeMo 25.11 container",
    ),
}


# What only a checkpoint of that kind has in its folder.
SIGNS = {"megatron": ("latest_checkpointed_iteration.txt", "run_config.yaml"), "legacy": ("context",)}
# (hidden size, layers, router's scores) of the models that NeMo 2.7 knows, to its name of their config.
LEGACY = {
    (7168, 61, "sigmoid"): "DeepSeekV3Config",
    (5120, 60, "softmax"): "DeepSeekV2Config",
    (2048, 27, "softmax"): "DeepSeekV2LiteConfig",
}


def kind_of(folder: Path) -> str | None:
    """Megatron or legacy, by what lies in a folder; None if neither."""
    return next((kind for kind, signs in SIGNS.items() if any((folder / sign).exists() for sign in signs)), None)


def check_installed(kind: str) -> None:
    """Say at once what is missing.

    Raises:
        InputError: `kind` is unknown, or its package is not installed.
    """
    if kind not in NEEDS:
        raise InputError(f"engine {kind!r} is none of {', '.join(NEEDS)}")
    module, remedy = NEEDS[kind]
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise InputError(f"{module} is not installed here; it needs {remedy}")


def check_sizes(config: DeepSeekConfig, options: MegatronOptions) -> None:
    """Refuse sizes that do not divide.

    Raises:
        ConfigError: names the size.
    """
    heads = config.num_attention_heads
    rules = (
        ("tensor_model_parallel_size", heads, "attention heads"),
        ("expert_model_parallel_size", config.n_routed_experts, "routed experts"),
    )
    sizes = options.sizes()
    for name, whole, what in rules:
        if sizes[name] < 1 or whole % sizes[name]:
            raise ConfigError(f"{name}: {sizes[name]} must divide the {whole} {what} of the model")
    if not 1 <= options.pipeline_model_parallel_size <= config.num_hidden_layers:
        raise ConfigError(
            f"pipeline_model_parallel_size: {options.pipeline_model_parallel_size} must be in "
            f"1..{config.num_hidden_layers}, the layers"
        )


def import_megatron(src: str | Path, dst: str | Path, options: MegatronOptions | None = None) -> None:
    """Write a Megatron checkpoint; with sizes above 1, under torchrun with their product of processes.

    Raises:
        InputError: Megatron-Bridge is not installed, or the weights are FP8.
        ConfigError: the sizes do not divide the model.
    """
    options = options or MegatronOptions()
    check_sizes(_plain_config(src), options)
    check_installed("megatron")
    import torch
    from megatron.bridge import AutoBridge

    if all(size == 1 for size in options.sizes().values()):
        AutoBridge.import_ckpt(str(src), str(dst), torch_dtype=torch.bfloat16)
        return
    bridge = AutoBridge.from_hf_pretrained(str(src), torch_dtype=torch.bfloat16)
    provider = bridge.to_megatron_provider(load_weights=True)
    for name, size in options.sizes().items():
        setattr(provider, name, size)
    provider.finalize()
    provider.initialize_model_parallel(seed=0)
    model = provider.provide_distributed_model(wrap_with_ddp=False)
    bridge.save_megatron_model(model, str(dst), hf_tokenizer_path=str(src))


def export_megatron(src: str | Path, dst: str | Path, base: str | Path, options: MegatronOptions | None = None) -> None:
    """Write a Hugging Face folder from a Megatron checkpoint; `base` is the folder that it was imported from.

    Raises:
        InputError: Megatron-Bridge is not installed.
        ConfigError: the sizes do not divide the model.
    """
    options = options or MegatronOptions()
    check_sizes(DeepSeekConfig.from_json(base), options)
    check_installed("megatron")
    from megatron.bridge import AutoBridge

    bridge = AutoBridge.from_hf_pretrained(str(base))
    if all(size == 1 for size in options.sizes().values()):
        bridge.export_ckpt(str(src), str(dst), strict=True, source_path=str(base))
        return
    overrides: Any = options.sizes()
    model = bridge.load_megatron_model(str(src), mp_overrides=overrides, wrap_with_ddp=False)
    bridge.save_hf_pretrained(model, str(dst), source_path=str(base), strict=True)


def _plain_config(src: str | Path) -> DeepSeekConfig:
    """The config of a checkpoint that is not FP8: others' importers would cast that in their own way, or not at all."""
    source = read_checkpoint(src)
    if any(info.dtype in FORMATS for info in source.tensors.values()):
        raise InputError(f"{src} is FP8; dequantize it first, exactly, rather than on the way")
    return DeepSeekConfig.from_dict(source.config)


def import_legacy(src: str | Path, dst: str | Path) -> None:
    """Write a `.nemo` folder of NeMo 2.7, which leaves the MTP layers out.

    Raises:
        InputError: that toolkit is not installed, does not know a model of this size, or the weights are FP8.
    """
    config = _plain_config(src)
    name = LEGACY.get((config.hidden_size, config.num_hidden_layers, config.scoring_func))
    if name is None:
        raise InputError(
            f"{src}: {config.num_hidden_layers} layers of {config.hidden_size} with a {config.scoring_func} router are "
            "no model that NeMo 2.7 knows (DeepSeek-V3, V2, V2-Lite): import it for megatron or automodel"
        )
    check_installed("legacy")
    from nemo.collections import llm

    model = llm.DeepSeekModel(getattr(llm, name)())
    llm.import_ckpt(model=model, source=f"hf://{Path(src).resolve()}", output_path=Path(dst))


def export_legacy(src: str | Path, dst: str | Path) -> None:
    """Write a Hugging Face folder from a `.nemo` folder of NeMo 2.7.

    Raises:
        InputError: that toolkit is not installed.
    """
    check_installed("legacy")
    from nemo.collections import llm

    llm.export_ckpt(path=Path(src), target="hf", output_path=Path(dst))
