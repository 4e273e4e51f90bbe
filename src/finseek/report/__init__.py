"""The report: one page that says in plain words what a run is worth, and the same figures for machines."""

from finseek.report.inputs import ReportInputs
from finseek.report.options import ReportOptions
from finseek.report.report import build_report

__all__ = ["ReportInputs", "ReportOptions", "build_report"]
