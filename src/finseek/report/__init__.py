"""The report: one page that says in plain words what a run is worth, and the same figures for machines."""

from finseek.report.card import model_card
from finseek.report.compare import compare_reports
from finseek.report.inputs import ReportInputs
from finseek.report.options import ReportOptions
from finseek.report.report import build_report, report_schema

__all__ = ["ReportInputs", "ReportOptions", "build_report", "compare_reports", "model_card", "report_schema"]
