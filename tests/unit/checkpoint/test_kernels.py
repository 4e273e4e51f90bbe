"""Every kernel equals the reference bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.unit.checkpoint import reference

from finseek.checkpoint.fp8 import FORMATS, TARGETS, count_nonfinite, grid, to_bits, to_float32
from finseek.checkpoint.kernels import KERNELS, load_kernel
from finseek.core.errors import InputError

CPU = ["numba", "torch"]
TINY = np.float32(1e-45)
EXTREME = [1.0, 0.0, TINY, 1e-39, 1.1754944e-38, 3e-38, 2.0**-20, 0.1, 1 / 3, 7.0, 2.0**110, 2.0**120, 3.4e38, np.inf]
SHAPES = [(1, 130), (129, 257), (576, 7168), (4097, 127), (1, 1), (128, 128), (32, 64), (300, 129)]


def run(kernel: str, codes: np.ndarray, scales: np.ndarray, block: tuple[int, int], name: str, target: str):
    out = np.full(codes.shape, 0x1234, TARGETS[target].bits)
    load_kernel(kernel)(codes, scales, out, block, FORMATS[name], TARGETS[target])
    return out


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kernel", CPU)
def test_all_codes_under_extreme_scales(kernel: str, name: str, target: str) -> None:
    scales = np.array([*EXTREME, *(-s for s in EXTREME), np.nan], np.float32)[:, None]
    codes = np.tile(np.arange(256, dtype=np.uint8), (len(scales), 1))
    block = (1, 256)
    np.testing.assert_array_equal(
        run(kernel, codes, scales, block, name, target), reference.dequantize(codes, scales, block, name, target)
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", CPU)
def test_ragged_shapes(kernel: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape[0] * 10_007 + shape[1])
    codes = rng.integers(0, 256, shape, dtype=np.uint8)
    scales = np.exp2(rng.uniform(-30, 5, grid(shape, (128, 128)))).astype(np.float32)
    name = "F8_E4M3" if shape[0] % 2 else "F8_E5M2"
    np.testing.assert_array_equal(
        run(kernel, codes, scales, (128, 128), name, "bf16"),
        reference.dequantize(codes, scales, (128, 128), name, "bf16"),
    )


@pytest.mark.parametrize("kernel", CPU)
def test_other_block_sizes(kernel: str) -> None:
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 256, (100, 130), dtype=np.uint8)
    for block in [(1, 130), (100, 1), (48, 64), (256, 256), (33, 7)]:
        scales = rng.uniform(0.001, 3, grid(codes.shape, block)).astype(np.float32)
        np.testing.assert_array_equal(
            run(kernel, codes, scales, block, "F8_E4M3", "fp16"),
            reference.dequantize(codes, scales, block, "F8_E4M3", "fp16"),
        )


@pytest.mark.parametrize("name", FORMATS)
def test_format_tables_follow_the_specification(name: str) -> None:
    expected = np.array([reference.decode(code, name) for code in range(256)])
    np.testing.assert_array_equal(FORMATS[name].values(), expected)
    finite = expected[np.isfinite(expected)]
    assert FORMATS[name].largest == finite.max()
    codes = np.arange(256, dtype=np.uint8)
    assert count_nonfinite(codes, FORMATS[name]) == 256 - len(finite)
    assert count_nonfinite(codes[:100], FORMATS[name]) == 0


@pytest.mark.parametrize("target", TARGETS)
def test_rounding_and_back(target: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    np.testing.assert_array_equal(to_bits(values, TARGETS[target]), reference.round_to(values, target))
    every = np.arange(2**16).astype(TARGETS[target].bits)
    again = to_bits(to_float32(every, TARGETS[target]), TARGETS[target])
    numbers = ~np.isnan(to_float32(every, TARGETS[target]))
    np.testing.assert_array_equal(again[numbers], every[numbers])


def test_an_unknown_kernel_is_named() -> None:
    with pytest.raises(InputError, match="kernel 'cuda' is none of auto, numba, torch, triton"):
        load_kernel("cuda")
    assert {path.stem for path in Path(sys.modules[load_kernel.__module__].__file__).parent.glob("*.py")} == {
        "__init__",
        *(module for module, _, _ in KERNELS.values()),
    }


INTERPRETED = """
import numpy as np, torch
from finseek.checkpoint.fp8 import FORMATS, TARGETS, grid
from finseek.checkpoint.kernels.gpu import dequantize_tensor
from tests.unit.checkpoint import reference
rng = np.random.default_rng(3)
for name in FORMATS:
    for shape, block in [((2, 256), (1, 256)), ((1, 130), (128, 128)), ((129, 257), (128, 128)), ((70, 50), (48, 32))]:
        codes = rng.integers(0, 256, shape, dtype=np.uint8)
        codes.ravel()[:256] = np.arange(min(256, codes.size))
        scales = np.exp2(rng.uniform(-40, 40, grid(shape, block))).astype(np.float32)
        scales.flat[0] = 2.0 ** rng.integers(-126, 119)
        out = torch.empty(shape, dtype=torch.float32)
        dequantize_tensor(torch.from_numpy(codes), torch.from_numpy(scales), out, block, FORMATS[name])
        bits = out.numpy().view(np.uint32).copy()
        bits[np.isnan(out.numpy())] = TARGETS["fp32"].nan
        np.testing.assert_array_equal(bits, reference.dequantize(codes, scales, block, name, "fp32"))
print("equal")
"""


def test_triton_under_its_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(["src", "."])},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FORMATS)
def test_triton_on_a_gpu(name: str, target: str) -> None:
    scales = np.array([*EXTREME, *(-s for s in EXTREME), np.nan], np.float32)[:, None]
    codes = np.tile(np.arange(256, dtype=np.uint8), (len(scales), 1))
    np.testing.assert_array_equal(
        run("triton", codes, scales, (1, 256), name, target),
        reference.dequantize(codes, scales, (1, 256), name, target),
    )
    rng = np.random.default_rng(9)
    for shape in SHAPES:
        codes = rng.integers(0, 256, shape, dtype=np.uint8)
        scales = np.exp2(rng.uniform(-30, 5, grid(shape, (128, 128)))).astype(np.float32)
        np.testing.assert_array_equal(
            run("triton", codes, scales, (128, 128), name, target),
            reference.dequantize(codes, scales, (128, 128), name, target),
        )
