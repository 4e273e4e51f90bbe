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


def every_code() -> tuple[np.ndarray, np.ndarray]:
    """All 256 codes in a row for each extreme scale, in blocks of one row."""
    scales = np.array([*EXTREME, *(-s for s in EXTREME), np.nan], np.float32)[:, None]
    return np.tile(np.arange(256, dtype=np.uint8), (len(scales), 1)), scales


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kernel", CPU)
def test_all_codes_under_extreme_scales(kernel: str, name: str, target: str) -> None:
    (codes, scales), block = every_code(), (1, 256)
    np.testing.assert_array_equal(
        run(kernel, codes, scales, block, name, target), reference.dequantize(codes, scales, block, name, target)
    )


def ragged(shape: tuple[int, int], block: tuple[int, int] = (128, 128)) -> tuple[np.ndarray, np.ndarray]:
    """Every code that fits, and every extreme scale that fits among ordinary ones."""
    rng = np.random.default_rng(shape[0] * 10_007 + shape[1])
    codes = rng.integers(0, 256, shape, dtype=np.uint8)
    codes.ravel()[:256] = np.arange(min(256, codes.size))
    scales = np.exp2(rng.uniform(-30, 5, grid(shape, block))).astype(np.float32)
    extreme = rng.permutation(np.array(EXTREME, np.float32))[: scales.size]
    scales.ravel()[rng.permutation(scales.size)[: len(extreme)]] = extreme
    return codes, scales


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ragged_shapes(shape: tuple[int, int], name: str) -> None:
    codes, scales = ragged(shape)
    expected = reference.dequantize(codes, scales, (128, 128), name, "bf16")
    for kernel in CPU:
        np.testing.assert_array_equal(run(kernel, codes, scales, (128, 128), name, "bf16"), expected, err_msg=kernel)


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
    with pytest.raises(
        InputError, match=r"the triton kernel needs GPU 99, and torch finds [0-9]+: use kernel numba or torch"
    ):
        load_kernel("triton", 99)
    assert {path.stem for path in Path(sys.modules[load_kernel.__module__].__file__).parent.glob("*.py")} == {
        "__init__",
        *(module for module, _, _ in KERNELS.values()),
    }


# The interpreter truncates float32 to bfloat16, so it is asked for float32.
INTERPRETED = """
import numpy as np, torch
from finseek.checkpoint.fp8 import FORMATS, TARGETS
from finseek.checkpoint.kernels.gpu import dequantize_tensor
from tests.unit.checkpoint import reference
from tests.unit.checkpoint.test_kernels import SHAPES, every_code, ragged
cases = [(*every_code(), (1, 256))]
cases += [(*ragged(shape), (128, 128)) for shape in SHAPES] + [(*ragged((70, 50), (48, 32)), (48, 32))]
for name in FORMATS:
    for codes, scales, block in cases:
        if name == "F8_E5M2" and codes.size > 1_000_000:
            continue  # the interpreter is slow
        out = torch.empty(codes.shape, dtype=torch.float32)
        with np.errstate(all="ignore"):
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
    for (codes, scales), block in [(every_code(), (1, 256)), *((ragged(shape), (128, 128)) for shape in SHAPES)]:
        np.testing.assert_array_equal(
            run("triton", codes, scales, block, name, target), reference.dequantize(codes, scales, block, name, target)
        )
