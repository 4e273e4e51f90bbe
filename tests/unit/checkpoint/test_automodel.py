"""A checkpoint of ours in NeMo AutoModel, experts on two processes (CPU, gloo): every number and the logits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finseek.checkpoint import DequantizeOptions, NemoOptions, dequantize_checkpoint, export_hf, import_automodel
from finseek.checkpoint.nemo import prove_automodel_loads
from finseek.checkpoint.shards import read_checkpoint
from finseek.core.errors import ConfigError


def test_fp8_to_automodel_under_two_processes(quantized: Path, tmp_path: Path) -> None:
    import torch

    from finseek.model import DeepSeekV3

    folder, out = tmp_path / "nemo", tmp_path / "logits.pt"
    options = NemoOptions(expert_model_parallel_size=2, dequantize=DequantizeOptions(dtype="fp32"))
    import_automodel(quantized, folder, options)
    recipe = yaml.safe_load((folder / "automodel.yaml").read_text())
    assert recipe["distributed"]["ep_size"] == 2
    assert recipe["model"]["pretrained_model_name_or_path"] == str(folder.resolve())
    said = prove_automodel_loads(folder, 2, out)
    trunk = [name for name in read_checkpoint(folder).tensors if not name.startswith("model.layers.3.")]
    assert sorted(said.splitlines()) == [f"rank {rank} of 2: {len(trunk)} tensors equal" for rank in (0, 1)]
    theirs = torch.load(out)
    with torch.no_grad():
        ours = DeepSeekV3.from_pretrained(folder, num_nextn_predict_layers=0)(theirs["ids"]).logits
    torch.testing.assert_close(theirs["logits"], ours, atol=2e-5, rtol=2e-5)


def test_automodels_own_checkpoints_come_back(plain: Path, tmp_path: Path) -> None:
    """AutoModel loads and saves under two processes; back here, all is bit-exact, and its adapter says what it said."""
    import torch

    from finseek.model import DeepSeekV3

    base, out = tmp_path / "base", tmp_path / "out"
    dequantize_checkpoint(plain, base, DequantizeOptions(dtype="fp32"))
    worker = Path(__file__).with_name("automodel_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", worker, base, out]
    quiet = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | quiet, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    before = tensors_of(base)
    export_hf(out / "whole", tmp_path / "whole", base=base)
    export_hf(out / "whole", tmp_path / "trunk", mtp="drop")
    whole, trunk = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "trunk")
    assert whole.keys() == before.keys()
    assert trunk.keys() == {name for name in before if not name.startswith("model.layers.3.")}
    assert all(torch.equal(value, before[name]) for tensors in (whole, trunk) for name, value in tensors.items())
    export_hf(out / "lora", tmp_path / "merged", base=base)
    theirs = torch.load(out / "lora.pt")
    with torch.no_grad():
        ours, unadapted = (
            DeepSeekV3.from_pretrained(folder, num_nextn_predict_layers=0)(theirs["ids"]).logits
            for folder in (tmp_path / "merged", base)
        )
    torch.testing.assert_close(ours, theirs["logits"], atol=2e-5, rtol=2e-5)
    assert not torch.allclose(unadapted, theirs["logits"], atol=0.1)


def tensors_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def test_layouts_that_do_not_divide(quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expert_model_parallel_size: 3 must divide the 8 routed experts"):
        import_automodel(quantized, tmp_path / "out", NemoOptions(expert_model_parallel_size=3))
    with pytest.raises(ConfigError, match=r"pipeline_model_parallel_size: 4 must be in 1\.\.3"):
        import_automodel(quantized, tmp_path / "out", NemoOptions(pipeline_model_parallel_size=4))
    assert not (tmp_path / "out").exists()
