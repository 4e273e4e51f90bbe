"""The slow, obvious arithmetic for every kernel: floats by formula, rounding to the nearest neighbour."""

from __future__ import annotations

import math

import numpy as np

BITS = {"bf16": (np.uint16, 8, 7), "fp16": (np.uint16, 5, 10), "fp32": (np.uint32, 8, 23)}
FORMATS = {"F8_E4M3": (4, 3), "F8_E5M2": (5, 2)}


def decode(code: int, name: str) -> float:
    """An FP8 code by the formula of the specification."""
    exponent_bits, mantissa_bits = FORMATS[name]
    bias = 2 ** (exponent_bits - 1) - 1
    sign = -1.0 if code >> 7 else 1.0
    exponent, fraction = (code & 127) >> mantissa_bits, code & (2**mantissa_bits - 1)
    if name == "F8_E4M3" and code & 127 == 127:
        return math.nan
    if name == "F8_E5M2" and exponent == 31:
        return math.nan if fraction else sign * math.inf
    if exponent == 0:
        return sign * fraction * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + fraction / 2**mantissa_bits) * 2.0 ** (exponent - bias)


def value_of(bits: np.ndarray, target: str) -> np.ndarray:
    """Bit patterns of a 16- or 32-bit float as float64, infinity read as the next power of two."""
    _, exponent_bits, mantissa_bits = BITS[target]
    bits = bits.astype(np.int64)
    exponent = (bits >> mantissa_bits) & (2**exponent_bits - 1)
    fraction = bits & (2**mantissa_bits - 1)
    bias = 2 ** (exponent_bits - 1) - 1
    return np.where(
        exponent == 0,
        np.ldexp(fraction.astype(np.float64), 1 - bias - mantissa_bits),
        np.ldexp(1 + fraction / 2**mantissa_bits, exponent - bias),
    )


def round_to(values: np.ndarray, target: str) -> np.ndarray:
    """Float32 values to the nearest pattern of `target`, ties to the even one; NaN to the quiet NaN without sign."""
    bits, exponent_bits, mantissa_bits = BITS[target]
    with np.errstate(invalid="ignore"):  # a signalling NaN
        exact = np.abs(values.astype(np.float64))
    infinity = (2**exponent_bits - 1) << mantissa_bits
    low = np.zeros(values.shape, np.int64)
    for power in reversed(range(exponent_bits + mantissa_bits)):  # largest pattern not above the value, by bisection
        higher = low + (1 << power)
        low = np.where((higher < infinity) & (value_of(higher, target) <= exact), higher, low)
    below, above = exact - value_of(low, target), value_of(low + 1, target) - exact
    nearest = np.where((above < below) | ((above == below) & (low % 2 == 1)), low + 1, low)
    nearest = np.where(np.isinf(values), infinity, nearest)
    nearest |= np.signbit(values).astype(np.int64) << (exponent_bits + mantissa_bits)
    nearest = np.where(np.isnan(values), infinity | (1 << (mantissa_bits - 1)), nearest)
    return nearest.astype(bits)


def dequantize(codes: np.ndarray, scales: np.ndarray, block: tuple[int, int], name: str, target: str) -> np.ndarray:
    """Every weight on its own: decode, one float32 product, one rounding."""
    table = np.array([decode(code, name) for code in range(256)], np.float32)
    rows = np.arange(codes.shape[0]) // block[0]
    columns = np.arange(codes.shape[1]) // block[1]
    with np.errstate(all="ignore"):
        product = table[codes] * scales[np.ix_(rows, columns)]
    distinct, places = np.unique(product.view(np.uint32), return_inverse=True)
    return round_to(distinct.view(np.float32), target)[places].reshape(codes.shape)
