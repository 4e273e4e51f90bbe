"""The engines by name; each is imported when it is asked for."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import cast

from finseek.core.errors import ConfigError, MissingPart, Note
from finseek.train.job import Engine

ENGINES = {
    "lightning": ("finseek.train.engines.lightning.engine", "LightningEngine", "train"),
    "trl": ("finseek.train.engines.trl.engine", "TrlEngine", "trl"),
    "automodel": ("finseek.train.engines.automodel.engine", "AutoModelEngine", "nemo"),
    "megatron": ("finseek.train.engines.megatron.engine", "MegatronEngine", "train"),
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


STANDS_IN = {"automodel": "lightning"}


def engine_or_stand_in(name: str) -> Engine:
    """The engine, or another that reads the same config where its libraries are not installed, with a note.

    Raises:
        ConfigError: for an unknown name.
        MissingPart: when the engine's libraries are not installed, and no other engine stands in.
    """
    try:
        return load_engine(name)
    except MissingPart as missing:
        if name not in STANDS_IN:
            raise
        warnings.warn(f"{missing}; engine {STANDS_IN[name]} trains instead", Note, stacklevel=2)
        return load_engine(STANDS_IN[name])
