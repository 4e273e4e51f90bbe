"""The checkpoint at the end: one Hugging Face folder, of all weights or of an adapter."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finseek.core.artifacts import atomic_folder
from finseek.model import DeepSeekConfig, DeepSeekV3

if TYPE_CHECKING:
    from peft import PeftModel

PEFT_PREFIX = "base_model.model."


def write_checkpoint(
    place: Path, config: DeepSeekConfig, weights: Mapping[str, Tensor], adapted: PeftModel | None, tokenizer: Path
) -> None:
    """Write the folder, whole or not at all.

    Args:
        place: the folder.
        config: of the model.
        weights: all of the model by name, adapters included.
        adapted: the model with its adapters, where these alone are written.
        tokenizer: folder whose files go beside the weights.
    """
    with atomic_folder(place) as folder:
        if adapted is not None:
            state = {PEFT_PREFIX + name: each for name, each in weights.items()}
            adapted.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        else:
            whole_model(config, weights).save_pretrained(folder)
        for file in sorted(tokenizer.iterdir()):
            shutil.copyfile(file, folder / file.name)


def whole_model(config: DeepSeekConfig, weights: Mapping[str, Tensor]) -> DeepSeekV3:
    """A model of given weights, which it takes over."""
    with torch.device("meta"):
        model = DeepSeekV3(config)
    if config.tie_word_embeddings:
        weights = {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]}
    model.load_state_dict(dict(weights), assign=True)
    return model
