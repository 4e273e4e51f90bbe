"""Router metrics, and the names that the package promises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

import finseek.model
from finseek.model import DeepSeekV3, router_metrics
from finseek.model.insight import measure


def test_balance_and_collapse() -> None:
    even = measure(torch.full((4,), 5.0), torch.tensor([0.0, 0.1, -0.2, 0.0]))
    assert even is not None
    assert (even.max_over_mean, even.dead) == (1.0, 0)
    assert even.entropy == pytest.approx(1)
    assert even.bias_range == pytest.approx(0.3)
    collapsed = measure(torch.tensor([8.0, 0, 0, 0]))
    assert collapsed is not None
    assert (collapsed.max_over_mean, collapsed.dead, collapsed.entropy, collapsed.bias_range) == (4.0, 3, 0.0, 0.0)
    assert measure(torch.zeros(4)) is None


def test_a_model_is_measured_by_layer(make_model: Callable[..., DeepSeekV3], ids: torch.Tensor) -> None:
    model = make_model()
    assert router_metrics(model) == {1: None, 2: None}
    model.train()(ids)
    metrics = router_metrics(model)
    assert all(m is not None and m.max_over_mean >= 1 for m in metrics.values())


def test_every_promised_name_exists() -> None:
    for name in finseek.model.__all__:
        assert getattr(finseek.model, name) is not None
    with pytest.raises(AttributeError):
        finseek.model.nothing  # noqa: B018


def test_it_needs_torch_only_when_used() -> None:
    names = "DeepSeekConfig, parameter_counts"
    check = f"import sys; from finseek.model import {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_model_needs_no_transformers_no_pydantic() -> None:
    check = (
        "import sys, finseek.model.deepseek, finseek.model.parallel; "
        "print([m for m in ('transformers', 'pydantic', 'peft', 'polars', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
