"""Which layouts there are, whether one fits, and which that fits is the smallest and which the cheapest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finseek.core.errors import ConfigError
from finseek.model.config import DeepSeekConfig
from finseek.train.planner.hardware import Hardware
from finseek.train.planner.memory import Memory, memory
from finseek.train.planner.throughput import hours, tokens_per_second
from finseek.train.planner.workload import Layout, Workload

POWERS = tuple(2**k for k in range(11))
STAGES = tuple(sorted({*POWERS, 3, 5, 6, 10}))
AXES = ("tensor", "pipeline", "expert", "context")


@dataclass(frozen=True)
class Plan:
    """A layout and what it costs.

    Attributes:
        layout: the layout.
        memory: of its fullest GPU.
        fits: whether that is below the hardware's.
        tokens_per_second: of the whole job, estimated.
        price: dollars a million tokens, at the price given.
        hours: of the whole training; None where its length is not known.
        cost: of that, dollars.
    """

    layout: Layout
    memory: Memory
    fits: bool
    tokens_per_second: float
    price: float
    hours: float | None
    cost: float | None


@dataclass(frozen=True)
class Space:
    """What an engine can split: parallel sizes above 1 are looked at on ``axes`` alone, with these ways to share."""

    axes: frozenset[str] = frozenset(AXES)
    shardings: tuple[str, ...] = ("fsdp", "optimizer")


def divides(config: DeepSeekConfig, layout: Layout, hardware: Hardware) -> str | None:
    """Why a layout cannot be, or None: every size must divide what it splits."""
    t, p, e, c = layout.tensor, layout.pipeline, layout.expert, layout.context
    if layout.gpus % (t * p * c):
        return f"{layout.gpus} GPUs are no multiple of TP {t} × PP {p} × CP {c}"
    if (layout.data * c) % e:
        return f"EP {e} does not divide the {layout.data * c} ranks that hold the same layers"
    if e > 1 and config.n_routed_experts % e:
        return f"EP {e} does not divide {config.n_routed_experts} experts"
    if config.num_attention_heads % t:
        return f"TP {t} does not divide {config.num_attention_heads} heads"
    if t > hardware.per_node:
        return f"TP {t} leaves the node of {hardware.per_node} GPUs"
    if p > config.num_hidden_layers:
        return f"PP {p} exceeds {config.num_hidden_layers} layers"
    return None


def plan(work: Workload, layout: Layout, hardware: Hardware, price: float | None = None) -> Plan:
    """What one layout takes.

    Raises:
        ConfigError: if its sizes do not divide what they split.
    """
    obstacle = divides(work.config, layout, hardware)
    if obstacle:
        raise ConfigError(f"parallel: {obstacle}")
    used, speed = memory(work, layout), tokens_per_second(work, layout, hardware)
    hourly = (hardware.price if price is None else price) * layout.gpus
    time = hours(work, speed)
    cost = None if time is None else hourly * time
    return Plan(layout, used, used.total <= hardware.memory, speed, hourly / 3600 / speed * 1e6, time, cost)


def layouts(config: DeepSeekConfig, hardware: Hardware, gpus: int, space: Space | None = None) -> Iterator[Layout]:
    """Every layout of so many GPUs whose sizes divide."""
    space = space or Space()
    sizes = {axis: STAGES if axis == "pipeline" else POWERS for axis in AXES}
    if not config.is_moe:
        sizes["expert"] = (1,)
    sizes = {axis: sizes[axis] if axis in space.axes else (1,) for axis in AXES}
    for t in sizes["tensor"]:
        for p in sizes["pipeline"]:
            for c in sizes["context"]:
                if t * p * c > gpus or gpus % (t * p * c):
                    continue
                for e in sizes["expert"]:
                    for sharding in space.shardings:
                        layout = Layout(gpus, t, p, e, c, sharding)
                        if divides(config, layout, hardware) is None:
                            yield layout


def numbers(hardware: Hardware, limit: int = 4096) -> Iterator[int]:
    """Numbers of GPUs that people rent: parts of a node, nodes, then doublings."""
    node = hardware.per_node
    yield from (2**k for k in range(3) if 2**k < node)
    yield from range(node, 16 * node + 1, node)
    yield from (count for k in range(1, 8) if (count := 16 * node * 2**k) <= limit)


def best(
    work: Workload, hardware: Hardware, gpus: int, price: float | None = None, space: Space | None = None
) -> Plan | None:
    """The fastest plan that fits on exactly so many GPUs; of equals the one with most memory left."""
    found = (plan(work, layout, hardware, price) for layout in layouts(work.config, hardware, gpus, space))
    fitting = [each for each in found if each.fits]
    return max(
        fitting,
        key=lambda each: (each.tokens_per_second, each.layout.sharding, -each.memory.total),
        default=None,
    )


def smallest(work: Workload, hardware: Hardware, price: float | None = None, space: Space | None = None) -> Plan | None:
    """The plan that fits with the fewest GPUs, the fastest of those; None if nothing does."""
    return next(filter(None, (best(work, hardware, count, price, space) for count in numbers(hardware))), None)


def cheapest(work: Workload, hardware: Hardware, price: float | None = None, space: Space | None = None) -> Plan | None:
    """The plan that fits with the lowest price of a token, of equals the smallest; None if nothing does."""
    fitting = filter(None, (best(work, hardware, count, price, space) for count in numbers(hardware)))
    return min(fitting, key=lambda each: (round(each.price, 9), each.layout.gpus), default=None)
