"""Figures and the report of a run, the comparison of two runs, and the picture of a sample."""

from sizetransfer.report.differences import compare_runs
from sizetransfer.report.figure_sample import draw_sample
from sizetransfer.report.figures import check_figures
from sizetransfer.report.page import write_report
from sizetransfer.report.scene import Camera

__all__ = ["Camera", "check_figures", "compare_runs", "draw_sample", "write_report"]
