"""The report: one page that says in plain words what a run is worth, and the same figures for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finseek.report.card import model_card
    from finseek.report.compare import compare_reports
    from finseek.report.inputs import ReportInputs
    from finseek.report.options import ReportOptions
    from finseek.report.report import build_report, report_schema

# Imported when asked for: the config of a run needs the options alone.
_HOME = {
    "ReportInputs": "inputs",
    "ReportOptions": "options",
    "build_report": "report",
    "compare_reports": "compare",
    "model_card": "card",
    "report_schema": "report",
}
__all__ = ["ReportInputs", "ReportOptions", "build_report", "compare_reports", "model_card", "report_schema"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
