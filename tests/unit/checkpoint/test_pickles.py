"""A checkpoint is data: no pickle of a stranger runs, wherever a checkpoint can be named."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from finseek.checkpoint import inspect_checkpoint
from finseek.checkpoint.state import read_state
from finseek.core.errors import FinseekError, InputError
from finseek.evaluate.backends.huggingface import HuggingFaceBackend
from finseek.evaluate.options import EvaluateOptions
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.train.engines.trl.model import _checked_config
from finseek.train.state import load_file


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "model.pt"])
def test_a_folder_of_pickles_is_refused_unread(tmp_path: Path, trace: Path, name: str) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(DeepSeekConfig.preset("tiny").to_json_dict()))
    if name.startswith("adapter"):
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    (folder / name).write_bytes(pickle.dumps(Bomb(trace)))
    backend = HuggingFaceBackend.__new__(HuggingFaceBackend)
    backend.options = EvaluateOptions(backend="huggingface")
    for read in (backend.load, lambda path: _checked_config(None, path, None)):  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"as pickle .* take its safetensors"):
            read(folder)
    for read in (inspect_checkpoint, DeepSeekV3.from_pretrained):
        with pytest.raises(FinseekError):
            read(folder)
    assert not trace.exists()


def test_a_training_state_is_read_without_running_it(tmp_path: Path, trace: Path) -> None:
    state = tmp_path / "rank-0.pt"
    state.write_bytes(pickle.dumps(Bomb(trace), protocol=2))  # the one that torch writes
    with pytest.raises(InputError, match="no training state that can be read safely"):
        read_state(state)
    with pytest.raises(pickle.UnpicklingError):
        load_file(tmp_path, 0)
    assert not trace.exists()
    pickle.loads(state.read_bytes())
    assert trace.exists(), "the bomb itself must work"
