"""GPUs and precisions as tables."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """One GPU: usable memory in bytes, dense BF16 peak in TFLOP/s, GPUs in a node, a usual price in dollars an hour."""

    name: str
    memory: float
    tflops: float
    per_node: int
    price: float


HARDWARE = {
    row.name: row
    for row in (
        Hardware("A100-80", 79.2 * GIB, 312, 8, 1.6),
        Hardware("H100", 79.2 * GIB, 989, 8, 2.5),
        Hardware("H200", 139.8 * GIB, 989, 8, 3.5),
        Hardware("B200", 178 * GIB, 2250, 8, 5.5),
        Hardware("L40S", 44.4 * GIB, 362, 8, 1.0),
        Hardware("4090", 23.5 * GIB, 165, 8, 0.4),
    )
}


@dataclass(frozen=True)
class Precision:
    """Bytes of one parameter: as weight, as gradient, and in the optimiser (moments and master copy).

    Attributes:
        weight: of the weights that take part in the computation.
        gradient: of a trainable parameter's gradient.
        optimizer: of its optimiser state.
        activation: of one number that the backward pass keeps.
    """

    weight: float = 2
    gradient: float = 4
    optimizer: float = 12
    activation: float = 2


PRECISIONS = {
    "mixed": Precision(2, 4, 12, 2),  # BF16 weights, FP32 gradients, FP32 master and moments (Megatron)
    "bf16": Precision(2, 2, 4, 2),  # everything BF16, moments too (AutoModel with torch_dtype bfloat16)
    "bf16-mixed": Precision(4, 4, 8, 2),  # FP32 weights under autocast (Lightning)
    "fp32": Precision(4, 4, 8, 4),
}


def peak_of(device: str) -> float | None:
    """Dense BF16 operations a second of a GPU by the name that its driver gives; None for one not in the table."""
    for name, row in HARDWARE.items():
        if name.removesuffix("-80") in device:
            return row.tflops * 1e12
    return None
