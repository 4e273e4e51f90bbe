"""What the routers do, as numbers to log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from finseek.model.deepseek import DeepSeekV3


@dataclass(frozen=True)
class RouterMetrics:
    """How a layer's tokens spread over its experts since the last bias update.

    Attributes:
        max_over_mean: load of the busiest expert over the mean; 1 is perfect balance.
        dead: experts that no token visited.
        entropy: of the load's distribution, as a part of ln E; 1 is perfect balance.
        bias_range: largest minus smallest routing bias; 0 for a router without.
    """

    max_over_mean: float
    dead: int
    entropy: float
    bias_range: float


def router_metrics(model: DeepSeekV3) -> dict[int, RouterMetrics | None]:
    """Metrics by layer from the loads at hand; None where no token was counted."""
    return {
        layer: measure(router.load, getattr(router, "e_score_correction_bias", None))
        for layer, router in model.routers().items()
    }


def measure(load: Tensor, bias: Tensor | None = None) -> RouterMetrics | None:
    """Metrics of one load (E,)."""
    if not float(load.sum()):
        return None
    share = load.double() / load.sum()
    entropy = -share.xlogy(share).sum()
    uniform = share.new_tensor(len(share)).log().clamp_min(1e-12)
    return RouterMetrics(
        max_over_mean=float(share.max() * len(share)),
        dead=int((load == 0).sum()),
        entropy=float(entropy / uniform),
        bias_range=float(bias.max() - bias.min()) if bias is not None else 0.0,
    )
