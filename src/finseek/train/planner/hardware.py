"""GPUs and precisions as tables."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """One GPU.

    Attributes:
        name: as people write it.
        memory: bytes that a process can have.
        tflops: dense BF16 peak, 10¹² operations a second.
        share: of that peak which training of a mixture reaches. H100: 276 of 989 TFLOP/s, DeepSeek-V3 pre-training on
            1,024 GPUs with Megatron-Core; the same is assumed of its kin with NVLink, two thirds of it without.
        per_node: GPUs of one machine.
        price: a usual one, dollars of a GPU hour (on demand, 2026); give your own.
    """

    name: str
    memory: float
    tflops: float
    share: float
    per_node: int
    price: float


HARDWARE = {
    row.name: row
    for row in (
        Hardware("A100-80", 79.2 * GIB, 312, 0.28, 8, 1.6),
        Hardware("H100", 79.2 * GIB, 989, 0.28, 8, 2.5),
        Hardware("H200", 139.8 * GIB, 989, 0.28, 8, 3.5),
        Hardware("B200", 178 * GIB, 2250, 0.28, 8, 5.5),
        Hardware("L40S", 44.4 * GIB, 362, 0.19, 8, 1.0),
        Hardware("4090", 23.5 * GIB, 165, 0.19, 8, 0.4),
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
        computed: of a weight in the product, where that is another copy; else 0.
        trained: of an adapter's own weight.
    """

    weight: float
    gradient: float
    optimizer: float
    activation: float
    computed: float = 0
    trained: float = 4


PRECISIONS = {
    "mixed": Precision(2, 4, 12, 2),  # BF16 weights, FP32 gradients, FP32 master and moments (Megatron)
    "bf16": Precision(2, 2, 4, 2, trained=2),  # all BF16, moments too (AutoModel with torch_dtype bfloat16)
    "bf16-mixed": Precision(4, 4, 8, 2, computed=2),  # FP32 weights under autocast (Lightning)
    "bf16-frozen": Precision(2, 4, 8, 2),  # BF16 weights that stay, FP32 adapters (TRL with PEFT)
    "fp32": Precision(4, 4, 8, 4),
}
QUANTIZED = 0.5 + 4 / 64  # bytes of a weight in NF4: half a byte, and an FP32 scale for 64 of them (bitsandbytes)


def peak_of(device: str) -> float | None:
    """Dense BF16 operations a second of a GPU by the name that its driver gives; None for one not in the table."""
    for name, row in HARDWARE.items():
        if name.removesuffix("-80") in device:
            return row.tflops * 1e12
    return None
