"""The engines by name; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from finseek.core.errors import ConfigError, MissingPart
from finseek.train.job import Engine

ENGINES = {
    "lightning": ("finseek.train.engines.lightning", "LightningEngine", "train"),
    "automodel": ("finseek.train.engines.automodel", "AutoModelEngine", "nemo"),
    "megatron": ("finseek.train.engines.megatron", "MegatronEngine", "train"),
}


def load_engine(name: str) -> Engine:
    """Load an engine by the value of ``train.engine``.

    Raises:
        ConfigError: for an unknown name.
        MissingPart: when the engine's libraries are not installed.
    """
    if name not in ENGINES:
        raise ConfigError(f"train.engine {name!r} is none of {', '.join(ENGINES)}")
    module, attribute, extra = ENGINES[name]
    try:
        engine = getattr(import_module(module), attribute)
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("finseek"):
            raise
        raise MissingPart(missing.name or module, extra, f"train.engine {name}") from missing
    return cast(Engine, engine())
