"""Gaussian fields on tori and graphs: teachers, solver and the best local student."""
