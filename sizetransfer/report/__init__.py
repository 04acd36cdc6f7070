"""Figures and the report of a run, and the comparison of two runs."""

from sizetransfer.report.differences import compare_runs
from sizetransfer.report.page import write_report

__all__ = ["compare_runs", "write_report"]
