"""Realistic artifacts of a run, made from a seed, in the shapes that the other rooms write."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import numpy as np

from finseek.report import ReportInputs

ACTIONS = ("STRONG_SELL", "SELL", "HOLD", "BUY", "STRONG_BUY")
TICKERS = ("AXA", "BOR", "CYN", "DEL", "ERG", "FOX", "GIB", "HAL")


def business_days(first: date, count: int) -> list[date]:
    days, day = [], first
    while len(days) < count:
        if day.weekday() < 5:
            days.append(day)
        day += timedelta(days=1)
    return days


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def performance(equity: np.ndarray, costs: float) -> dict[str, Any]:
    r = np.diff(equity) / equity[:-1]
    peak = np.maximum.accumulate(equity)
    total = equity[-1] / equity[0] - 1
    return {
        "total_return": total,
        "annual_return": (1 + total) ** (252 / len(r)) - 1,
        "volatility": r.std(ddof=1) * math.sqrt(252),
        "sharpe": r.mean() / r.std(ddof=1) * math.sqrt(252),
        "sortino": 1.2,
        "max_drawdown": float((equity / peak - 1).min()),
        "calmar": None,
        "hit_rate_days": float((r > 0).mean()),
        "final_equity": float(equity[-1]),
        "turnover_daily": 0.31,
        "turnover_annual": 0.31 * 252,
        "gross_exposure": 0.52,
        "net_exposure": 0.52,
        "commission_paid": costs * 2 / 3,
        "slippage_paid": costs / 3,
        "costs_paid": costs,
        "costs_of_capital": costs / 1e5,
    }


def evaluation(rng: np.random.Generator, rows: int, sessions: int) -> dict[str, Any]:
    share = np.array([0.03, 0.42, 0.25, 0.27, 0.03])
    counts = []
    for c in range(5):
        weights = np.append(np.exp(-np.abs(np.arange(5) - c)) * share, 0.002)
        counts.append(rng.multinomial(round(rows * share[c]), weights / weights.sum()).tolist())
    total = sum(map(sum, counts))
    scored = total - sum(row[5] for row in counts)
    right = sum(counts[c][c] for c in range(5)) / total
    return {
        "rows": {
            "total": total,
            "scored": scored,
            "unscored": {"no_action": total - scored} if total > scored else {},
            "repaired": {},
            "sessions": sessions,
            "tickers": len(TICKERS),
            "first": "2025-01-02",
            "last": "2025-04-24",
        },
        "bootstrap": {"resamples": 10_000, "mean_block": 5.0, "level": 0.95, "seed": 0, "unit": "session"},
        "classification": {
            "coverage": estimate(scored / total, 0.01),
            "all": {"accuracy": estimate(right, 0.045), "macro_f1": estimate(0.38, 0.03)},
            "scored": {"accuracy": estimate(right, 0.045), "macro_f1": estimate(0.38, 0.03)},
            "by_class": {
                action: {
                    "support": sum(counts[c]),
                    "answered": sum(row[c] for row in counts),
                    "precision": estimate(0.5, 0.1),
                    "recall": estimate(0.45, 0.1),
                    "f1": estimate(0.47, 0.1),
                }
                for c, action in enumerate(ACTIONS)
            },
            "confusion": {"truth": list(ACTIONS), "answer": [*ACTIONS, "UNSCORED"], "counts": counts},
        },
        "financial": {
            str(h): {
                "rows": {
                    "with_return": total,
                    "without_return": 0,
                    "directional": 900,
                    "hold": 300,
                    "unscored": 3,
                    "zero_return": 2,
                },
                "hit_rate": estimate(0.512, 0.03),
                "mean_return": estimate(0.0004 * h, 0.002),
                "directional": {
                    "sessions": sessions,
                    "sharpe": estimate(0.6, 1.9),
                    "mean_per_session": estimate(0.0002, 0.001),
                },
            }
            for h in (1, 5, 10, 30)
        },
        "calibration": {
            "rows": scored,
            "rows_with_five_probabilities": scored,
            "brier": estimate(0.61, 0.04),
            "log_loss": estimate(1.12, 0.08),
            "expected_calibration_error": estimate(0.08, 0.03),
            "mean_confidence": estimate(0.58, 0.02),
            "reliability": [
                {"from": b / 10, "to": (b + 1) / 10, "rows": n, "confidence": sure, "accuracy": right_there}
                for b, (n, sure, right_there) in enumerate(
                    [(0, None, None)] * 3
                    + [(40, 0.36, 0.30), (150, 0.45, 0.41), (200, 0.55, 0.47), (120, 0.64, 0.60), (60, 0.75, 0.66)]
                    + [(44, 0.83, 0.80), (0, None, None)]
                )
            ],
        },
        "baselines": {
            "majority": {
                "accuracy": estimate(0.41, 0.03),
                "macro_f1": estimate(0.12, 0.01),
                "difference": {"accuracy": estimate(right - 0.41, 0.05)},
            },
            "persistence": {
                "accuracy": estimate(0.44, 0.03),
                "macro_f1": estimate(0.33, 0.02),
                "difference": {"accuracy": estimate(0.02, 0.03)},
            },
            "gradient_boosting": {
                "accuracy": estimate(0.45, 0.03),
                "macro_f1": estimate(0.31, 0.02),
                "difference": {"accuracy": estimate(-0.05, 0.03)},
            },
        },
    }


def predictions(rng: np.random.Generator, days: list[date]) -> list[dict[str, Any]]:
    rows = []
    for day in days:
        for ticker in TICKERS:
            p = rng.dirichlet(np.array([0.3, 2.0, 1.2, 1.4, 0.3]))
            answer = ACTIONS[int(p.argmax())]
            truth = ACTIONS[int(rng.choice(5, p=0.75 * p + 0.25 * np.array([0.03, 0.42, 0.25, 0.27, 0.03])))]
            rows.append(
                {
                    "ticker": ticker,
                    "as_of_date": day.isoformat(),
                    "gt_action": truth,
                    "pred_action": answer,
                    "status": "scored",
                    **{f"p_{action.lower()}": float(x) for action, x in zip(ACTIONS, p, strict=True)},
                    "completion": f"<action>{answer}</action>",
                    "realized_return": float(rng.normal(0, 0.02)),
                }
            )
    return rows


def train_log(rng: np.random.Generator, steps: int) -> list[dict[str, Any]]:
    rows = []
    for step in range(10, steps + 1, 10):
        loss = 0.9 + 2.8 * math.exp(-step / 120) + rng.normal(0, 0.03)
        spread = 0.06 * math.exp(-step / 300) + 0.01
        rows.append(
            {
                "step": step,
                "epoch": step / 90,
                "tokens": step * 8192,
                "loss": loss,
                "action_loss": loss * 0.8,
                "validation_loss": 0.95 + 2.6 * math.exp(-step / 130) + (step / steps) ** 4 * 0.1
                if step % 50 == 0
                else None,
                "validation_action_loss": 0.8 + 2.0 * math.exp(-step / 130) if step % 50 == 0 else None,
                "learning_rate": 1e-3 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))),
                "grad_norm": 0.8 + abs(rng.normal(0, 0.3)),
                "router_load_max": 1 + 8 * spread,
                "router_load_min": 1 - 8 * spread,
                "seconds": step * 0.4,
                "tokens_per_second": 20_000 + rng.normal(0, 400),
            }
        )
    return rows


def certificate(disjoint: bool = True) -> dict[str, Any]:
    def part(count: int, first: str, last: str, end: str | None, sessions: int) -> dict[str, Any]:
        return {
            "count": count,
            "first_as_of_date": first,
            "last_as_of_date": last,
            "sessions": sessions,
            "tickers": 8,
            "actions": {},
            "max_label_end": end,
            "label_ends_beyond_last_session": 0,
            "uids_sha256": "ab" * 32,
        }

    pairs = [
        ("train", "validation", "2024-11-29", "2024-12-02"),
        ("train", "test", "2024-11-29", "2025-01-02"),
        ("validation", "test", "2024-12-31", "2025-01-02"),
    ]
    return {
        "options": {"train_end": "2024-12-31", "test_start": "2025-01-01", "purge": True},
        "sessions": {"count": 496, "first": "2023-07-10", "last": "2025-06-30"},
        "found": 2984,
        "kept": {"train": 2160, "validation": 128, "test": 616},
        "dropped": {"purged": 80},
        "splits": {
            "train": part(2160, "2023-10-24", "2024-11-20", "2024-11-29", 270),
            "validation": part(128, "2024-12-02", "2024-12-20", "2024-12-31", 16),
            "test": part(616, "2025-01-02", "2025-04-24", "2025-05-02", 77),
        },
        "overlaps": [
            {"earlier": a, "later": b, "max_label_end": end, "first_session": first, "disjoint": disjoint}
            for a, b, end, first in pairs
        ],
        "labels_disjoint": disjoint,
    }


def make_inputs(
    seed: int = 0, *, sessions: int = 77, drift: float = -0.0004, excess: float = -0.03, **changes: Any
) -> ReportInputs:
    """Inputs of a whole run; ``changes`` replaces fields."""
    rng = np.random.default_rng(seed)
    days = business_days(date(2025, 1, 2), sessions + 1)
    market = rng.normal(0.0005, 0.011, sessions)
    curves = {
        "equity": 0.5 * market + rng.normal(drift, 0.004, sessions),
        "buy_and_hold": market,
        "all_buy": market - 0.00005,
        "momentum": market + 0.0002,
        "hold_keep": 0.8 * market + rng.normal(drift, 0.003, sessions),
    }
    grown = {name: 1e5 * np.concatenate([[1.0], np.cumprod(1 + r)]) for name, r in curves.items()}
    strategy = performance(grown["equity"], 1450.0) | {"hit_rate_trades": 0.49, "trades_closed": 311, "trades_open": 9}
    backtest = {
        "window": {
            "first_decision": str(days[0]),
            "first_fill": str(days[1]),
            "last": str(days[-1]),
            "sessions": sessions,
            "tickers": 8,
            "sharpe_standard_error": math.sqrt(252 / sessions),
            "smallest_detectable_sharpe": 1.96 * math.sqrt(252 / sessions),
        },
        "signals": {"given": 616, "traded": 613, "no_signal": 3, "unexecuted": 0, "cells_without_signal": 3},
        "orders": {"filled": 2211, "rejected: no price": 2},
        "performance": strategy,
        "hold": {"flat": strategy, "keep": performance(grown["hold_keep"], 800.0) | {"trades_closed": 120}},
        "benchmarks": {name: performance(grown[name], 150.0) for name in ("buy_and_hold", "all_buy", "momentum")},
        "excess": {"mean_daily": excess / 252, "annual": estimate(excess, 0.11) | {"p_value": 0.7}, "sharpe": -0.4},
        "options": {"hold": "flat", "transaction_cost": 0.001, "slippage": 0.0005},
        "nulls": {
            "statistic": "sharpe",
            "books": 1000,
            "without_value": 0,
            "observed": strategy["sharpe"],
            "p_value": 0.62,
            "quantiles": {"0.05": -1.4, "0.5": 0.3, "0.95": 2.1},
            "values": rng.normal(0.3, 1.1, 1000).tolist(),
        },
        "drawdowns": [
            {
                "depth": -0.051,
                "peak": str(days[18]),
                "valley": str(days[36]),
                "recovery": str(days[44]),
                "sessions": 26,
            },
            {"depth": -0.021, "peak": str(days[66]), "valley": str(days[77]), "recovery": None, "sessions": 11},
        ],
        "relative": {
            "benchmark": "all_buy",
            "beta": 0.51,
            "alpha_annual": -0.03,
            "tracking_error": 0.11,
            "information_ratio": -0.4,
            "correlation": 0.83,
        },
        "attribution": {
            "total": 2900.0,
            "side": {"long": 2900.0, "short": 0.0, "interest": 0.0},
            "ticker": {ticker: 362.5 * (-1) ** i for i, ticker in enumerate(TICKERS)},
            "costs": {"commission": 967.0, "slippage": 483.0, "income": 0.0, "interest": 0.0},
        },
    }
    invested = 0.5 + 0.2 * np.sin(np.arange(sessions + 1) / 6)
    rows = predictions(rng, days[:-1])
    words = {"reasoning": "The price stands 4 % above its mean while volume falls.", "support": "RSI 14 is 71."}
    fields: dict[str, Any] = {
        "config": {
            "run": {"name": "demo", "seed": 7},
            "split": {"train_end": "2024-12-31", "test_start": "2025-01-01", "validation_days": 30, "label_horizon": 5},
            "prompt": {"answer_order": ["action", "reasoning", "support"]},
            "model": {"preset": "tiny", "path": None},
            "train": {"engine": "lightning"},
            "evaluate": {"mode": "score"},
            "backtest": {
                "hold": "flat",
                "shorts": False,
                "sizing_strategy": "equal_weight",
                "transaction_cost": 0.001,
                "slippage": 0.0005,
            },
        },
        "run": {
            "name": "demo",
            "seed": 7,
            "finished": "2026-01-05T10:00:00+00:00",
            "code": {"version": "0.1.0", "git_commit": "0123456789abcdef", "git_dirty": False},
            "environment": {
                "python": "3.11.2",
                "platform": "Linux-6.1-x86_64",
                "cpus": 2,
                "packages": {"numpy": "2.1.0", "torch": "2.13.0", "peft": None},
            },
            "stages": {
                "theses": {"seconds": 1.2, "counts": {"kept": 2984, "rejected": 24}},
                "train": {"seconds": 121.7, "counts": {"steps": 600}},
            },
        },
        "theses": {
            "found": 3008,
            "kept": 2984,
            "rejected": 24,
            "rejected_by_reason": {"action_error": 23, "empty_support": 1},
            "salvaged": 0,
            "actions": dict(zip(ACTIONS, (60, 1260, 750, 820, 94), strict=True)),
            "tickers": dict.fromkeys(TICKERS, 373),
            "sessions": 376,
            "first_as_of_date": "2023-10-24",
            "last_as_of_date": "2025-04-24",
        },
        "rejects": [
            {
                "reason": "action_error",
                "detail": "action 'error' is none of the five",
                "source_file": "TGT.xml",
                "index": i,
                "line": 40 * i,
                "raw": {},
            }
            for i in range(24)
        ],
        "prices": {
            "tickers": 8,
            "sessions": 496,
            "first_session": "2023-07-10",
            "last_session": "2025-06-30",
            "bars": 3968,
            "missing_bars": 0,
            "tickers_without_last_session": [],
            "benchmark": None,
            "survivorship_warning": "all 8 tickers trade to the last session",
        },
        "certificate": certificate(),
        "train_log": train_log(rng, 600),
        "evaluation": evaluation(rng, 616, sessions),
        "examples": [row | words for row in rows[:: len(rows) // 6 + 1]],
        "backtest": backtest,
        "equity": {
            "date": [str(day) for day in days],
            **{n: v.tolist() for n, v in grown.items()},
            "gross_exposure": invested.tolist(),
            "net_exposure": invested.tolist(),
        },
        "planted": {"bayes_accuracy": 0.71, "alpha": 0.4},
        "trials": 12,
        "deflation": {"deflated_sharpe_ratio": 0.12},
        "audit": {"leaks": {"status": "passed", "summary": "No prompt holds a number from after its date."}},
        "lineage": {
            "inputs": {"theses.source/raw.zip": {"sha256": "1f" * 32, "bytes": 5_400_000}},
            "artifacts": {
                f"{name}": {"sha256": f"{i:02x}" * 32, "bytes": 1000 * (i + 1), "stage": name.partition("/")[0]}
                for i, name in enumerate(
                    [
                        "theses/all.jsonl",
                        "split/certificate.json",
                        "train/checkpoint/model.safetensors",
                        "evaluate/metrics.json",
                    ]
                )
            },
        },
    }
    return ReportInputs(**(fields | changes))
