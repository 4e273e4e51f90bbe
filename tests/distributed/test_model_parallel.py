"""Every parallel layout equals one process: logits, loss, gradients, weights after three steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from finseek.core.errors import ConfigError
from finseek.model import DeepSeekConfig, DeepSeekV3, MoE
from finseek.model.parallel import ExpertExchange, Layout, build_mesh, check_layout, parallelize
from finseek.model.parallel.exchange import Trip
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


CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL = {name: getattr(CONFIG, name) for name in (
    "vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "kv_lora_rank", "q_lora_rank",
    "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
)}  # fmt: skip


@pytest.mark.parametrize(
    ("file", "world", "sizes", "rank"),
    [
        ("base-2gpu", 2, (1, 1, 2, 1), 1),
        ("distributed-8gpu", 8, (1, 1, 4, 2), 7),
        ("distributed-32gpu", 32, (2, 1, 8, 2), 0),
        ("distributed-32gpu", 32, (2, 1, 8, 2), 31),
    ],
)
def test_the_shipped_layouts_of_2_8_and_32_gpus_divide_and_are_built(
    file: str, world: int, sizes: tuple[int, ...], rank: int, fake_processes: object
) -> None:
    from finseek.pipeline import load_config

    shipped = load_config(CONFIGS / f"{file}.yaml").config
    parallel, preset = shipped.parallel, shipped.model.preset
    layout = Layout(
        parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size, parallel.expert_model_parallel_size
    )
    assert parallel.world_size == world
    whole = DeepSeekConfig.preset(preset, aux_loss_alpha=shipped.train.balance_loss)
    check_layout(whole, layout, world)
    replicas = layout.data_parallel_size(world)
    assert shipped.train.global_batch_size % (shipped.train.micro_batch_size * replicas) == 0

    fake_processes(rank, world)  # type: ignore[operator]
    mesh = build_mesh(layout, world, "cpu")
    assert mesh.shape == sizes
    stages, stage = sizes[0], mesh.get_coordinate()[0]
    model = DeepSeekV3(replace(whole, **SMALL))
    if stages > 1:
        cut(model, stages, stage)
    part = parallelize(model, layout, mesh)
    mixed = [block.mlp.experts for block in part.module.model.layers if block.is_moe]
    held = stage_layers(whole.num_hidden_layers, stages, stage)
    assert len(mixed) == len([layer for layer in held if layer >= whole.first_k_dense_replace])
    ep = layout.expert_model_parallel_size
    assert all(experts.gate_up_proj.shape[0] == whole.n_routed_experts // ep for experts in mixed)
    assert all(experts.exchange.P == ep for experts in mixed)


def test_the_shared_experts_compute_while_the_rows_travel(tmp_path: Path) -> None:
    """In the forward pass and, with their gradients, in the backward pass."""
    events: list[str] = []
    x = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    config = replace(CONFIG, hidden_size=32)
    found = []
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for exchange in (None, ExpertExchange(torch.distributed.group.WORLD)):
            moe = MoE(config)
            with torch.no_grad():
                for parameter in moe.parameters():
                    parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
            moe.experts.exchange = exchange
            if exchange:
                watch(moe, events)
            y, _ = moe(x)
            found.append([y, *torch.autograd.grad(y.square().sum(), [x, *moe.parameters()])])
    finally:
        torch.distributed.destroy_process_group()
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    forward = ["depart", "shared", "arrive", "depart", "arrive"]
    assert events == [*forward, "depart back", "arrived back", "depart back", "shared back", "arrived back"]


def watch(moe: MoE, events: list[str]) -> None:
    """Note when rows and gradients leave and arrive, and when the shared experts run."""
    exchange, start = moe.experts.exchange, Trip.start

    class Noted(Trip):
        def start(self, rows: torch.Tensor, there: bool) -> torch.Tensor:
            events.append("depart" if there else "depart back")
            coming = start(self, rows, there)
            work, event = self.work, "arrive" if there else "arrived back"
            self.work = SimpleNamespace(wait=lambda: (events.append(event), work.wait()))
            return coming

    exchange.trip = Noted
    moe.shared_experts.register_forward_hook(lambda *_: events.append("shared"))
    moe.shared_experts.down_proj.register_full_backward_hook(lambda *_: events.append("shared back"))


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
    layout = Layout(pipeline_model_parallel_size=2)
    for overrides in ({"aux_loss_alpha": 1e-4}, {"num_nextn_predict_layers": 1}, {"tie_word_embeddings": True}):
        with pytest.raises(ConfigError):
            check_layout(replace(CONFIG, **overrides), layout, 2)
