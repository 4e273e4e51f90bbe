"""A checkpoint of ours in NeMo AutoModel, experts on two processes (CPU, gloo): every number and the logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finseek.checkpoint import DequantizeOptions, NemoOptions, import_automodel
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


def test_layouts_that_do_not_divide(quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expert_model_parallel_size: 3 must divide the 8 routed experts"):
        import_automodel(quantized, tmp_path / "out", NemoOptions(expert_model_parallel_size=3))
    with pytest.raises(ConfigError, match=r"pipeline_model_parallel_size: 4 must be in 1\.\.3"):
        import_automodel(quantized, tmp_path / "out", NemoOptions(pipeline_model_parallel_size=4))
    assert not (tmp_path / "out").exists()
