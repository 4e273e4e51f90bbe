"""On a GPU: the fused paths equal the CPU's. Needs torch, safetensors and this package alone."""

from __future__ import annotations

import pytest
import torch

from finseek.model import DeepSeekConfig, DeepSeekV3
from finseek.model.cache import Cache, advance
from finseek.model.graph import FixedStep, can_record
from finseek.model.grouped import grouped_linear, loop_linear

pytestmark = pytest.mark.gpu
CONFIG = DeepSeekConfig.preset("tiny", vocab_size=256, n_group=4, topk_group=2, eos_token_id=None)


@pytest.fixture
def pair() -> tuple[DeepSeekV3, DeepSeekV3]:
    """The same model on the CPU and on the GPU."""
    on_cpu, on_gpu = DeepSeekV3(CONFIG, seed=1).eval(), DeepSeekV3(CONFIG, seed=1).eval()
    return on_cpu, on_gpu.cuda()


def test_logits_and_gradients_equal_those_of_the_cpu(pair: tuple[DeepSeekV3, DeepSeekV3]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    ids = torch.randint(3, 256, (2, 130), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    outputs = []
    for model, device in zip(pair, ("cpu", "cuda"), strict=True):
        out = model(ids.to(device), mask.to(device), ids.to(device))
        out.loss.backward()
        outputs.append(
            [(out.logits * mask[..., None].to(device)).detach().cpu(), *(p.grad.cpu() for p in model.parameters())]
        )
    for a, b in zip(*outputs, strict=True):
        assert (a - b).abs().max() <= 1e-4 * a.abs().max().clamp_min(1e-12)


def test_greedy_tokens_equal_those_of_the_cpu(pair: tuple[DeepSeekV3, DeepSeekV3]) -> None:
    ids = torch.randint(3, 256, (4, 20), generator=torch.Generator().manual_seed(0))
    on_cpu, on_gpu = (m.generate(ids.to(d), max_new_tokens=8) for m, d in zip(pair, ("cpu", "cuda"), strict=True))
    assert torch.equal(on_cpu, on_gpu.cpu())


def test_grouped_bf16_equals_the_loop() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    rows = torch.randn(96, 64, generator=generator, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(4, 32, 64, generator=generator, device="cuda", dtype=torch.bfloat16)
    counts = torch.tensor([50, 0, 6, 40], device="cuda")
    torch.testing.assert_close(
        grouped_linear(rows, weight, counts), loop_linear(rows, weight, counts), rtol=2e-2, atol=0.1
    )


def test_a_recorded_decoding_equals_eager_steps_and_asks_the_host_nothing() -> None:
    model = DeepSeekV3(CONFIG, seed=1).eval().cuda().bfloat16()
    assert can_record(model)
    padding = torch.zeros(4, 20, dtype=torch.bool, device="cuda")
    padding[1, :6] = True
    ids = torch.randint(3, 256, (4, 20), generator=torch.Generator().manual_seed(0)).cuda()
    with torch.inference_mode():
        eager, recorded = (Cache.empty(model, 4, 40, padding) for _ in range(2))
        for cache in (eager, recorded):
            advance(model, cache, ids)
        plain, graph = FixedStep(model, eager), FixedStep(model, recorded).record()
        tokens = ids[:, -1:]
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(8):
                expected, ours = plain(tokens), graph(tokens)
                tokens = expected.argmax(dim=-1, keepdim=True)
                differences = (expected - ours).abs().max()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert float(differences) <= 1e-2 * float(expected.abs().max())


def test_a_training_step_in_bf16_asks_the_host_nothing() -> None:
    model = DeepSeekV3(CONFIG, seed=1).train().cuda().bfloat16()
    ids = torch.randint(3, 256, (2, 64), generator=torch.Generator().manual_seed(0)).cuda()
    model(ids, labels=ids, return_logits=False).loss.backward()  # kernels choose themselves
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = model(ids, labels=ids, return_logits=False).loss
        loss.backward()
        model.update_router_bias(0.001)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()
