"""Every parallel layout equals one process: logits, loss, gradients, weights after three steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finseek.core.errors import ConfigError
from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.parallel import Layout, build_mesh, check_layout, parallelize
from finseek.model.parallel.pipeline import cut, stage_layers

TOLERANCE = 1e-5
WORKER = Path(__file__).with_name("model_worker.py")
NAMES = {
    2: ["EP 2", "EP 2, FSDP", "TP 2", "FSDP 2", "DP 2", "PP 2"],
    4: ["EP 4", "EP 2 × EDP 2, FSDP", "EP 2 × TP 2", "EP 2 × TP 2, FSDP", "EP 2 × PP 2"],
}
CASES = [
    (world, f"{name}, torch.{dtype}") for world in NAMES for name in NAMES[world] for dtype in ("float32", "float64")
]


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, dict[str, float]]]:
    """What the workers found, by number of processes."""
    found = {}
    source = Path(__file__).resolve().parents[2] / "src"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)}
    for world in NAMES:
        result = tmp_path_factory.mktemp("parallel") / "result.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        done = subprocess.run([*command, str(WORKER), str(result)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found[world] = json.loads(result.read_text())
    return found


@pytest.mark.parametrize(("world", "case"), CASES)
def test_a_layout_equals_one_process(
    world: int, case: str, differences: dict[int, dict[str, dict[str, float]]]
) -> None:
    assert set(differences[world]) == {name for w, name in CASES if w == world}
    for quantity, difference in differences[world][case].items():
        assert difference <= TOLERANCE, quantity


CONFIG = DeepSeekConfig.preset(
    "distributed", vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, kv_lora_rank=8,
    q_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4, aux_loss_alpha=0.0,
)  # fmt: skip


@pytest.fixture
def fake_processes() -> object:
    """Start a pretended process group; it ends with the test."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def start(rank: int, world: int) -> None:
        torch.distributed.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())

    yield start
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("world", "layout", "rank"),
    [
        (2, Layout(expert_model_parallel_size=2), 1),
        (8, Layout(expert_model_parallel_size=8), 5),
        (8, Layout(expert_model_parallel_size=4, tensor_model_parallel_size=2), 7),
        (32, Layout(expert_model_parallel_size=8, tensor_model_parallel_size=2, pipeline_model_parallel_size=2), 0),
        (32, Layout(expert_model_parallel_size=8, tensor_model_parallel_size=2, pipeline_model_parallel_size=2), 31),
    ],
)
def test_layouts_of_2_8_and_32_processes_are_built(
    world: int, layout: Layout, rank: int, fake_processes: object
) -> None:
    fake_processes(rank, world)  # type: ignore[operator]
    mesh = build_mesh(layout, world, "cpu")
    model = DeepSeekV3(CONFIG)
    stages = layout.pipeline_model_parallel_size
    if stages > 1:
        cut(model, stages, mesh.get_coordinate()[0])
    part = parallelize(model, layout, mesh)
    mixed = [block.mlp.experts for block in part.module.model.layers if block.is_moe]
    held = stage_layers(24, stages, mesh.get_coordinate()[0])
    assert len(mixed) == len([layer for layer in held if layer >= 1])
    ep = layout.expert_model_parallel_size
    assert all(experts.gate_up_proj.shape[0] == 16 // ep for experts in mixed)
    assert all(experts.exchange.P == ep for experts in mixed)


def test_stages_share_the_layers() -> None:
    assert [len(stage_layers(61, 8, stage)) for stage in range(8)] == [8, 8, 8, 8, 8, 7, 7, 7]
    assert [layer for stage in range(4) for layer in stage_layers(10, 4, stage)] == list(range(10))


@pytest.mark.parametrize(
    ("layout", "world", "says"),
    [
        (Layout(tensor_model_parallel_size=2, pipeline_model_parallel_size=2), 6, "6 processes are not a multiple of"),
        (Layout(expert_model_parallel_size=3), 3, "3 must divide the 16 routed experts"),
        (Layout(expert_model_parallel_size=4, tensor_model_parallel_size=2), 4, "4 / (TP 2 × PP 1) = 2"),
        (Layout(tensor_model_parallel_size=32), 32, "32 must divide num_attention_heads 16"),
        (Layout(pipeline_model_parallel_size=25), 25, "exceeds the 24 layers"),
        (Layout(tensor_model_parallel_size=0), 2, "at least 1"),
    ],
)
def test_what_does_not_divide_is_refused_with_the_arithmetic(layout: Layout, world: int, says: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_layout(CONFIG, layout, world)
    assert says in str(refusal.value)


def test_a_pipeline_refuses_what_it_would_drop() -> None:
    from dataclasses import replace

    layout = Layout(pipeline_model_parallel_size=2)
    for overrides in ({"aux_loss_alpha": 1e-4}, {"num_nextn_predict_layers": 1}, {"tie_word_embeddings": True}):
        with pytest.raises(ConfigError):
            check_layout(replace(CONFIG, **overrides), layout, 2)
