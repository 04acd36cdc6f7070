"""Finite-depth local flows in two dimensions: teacher, figure and experiments."""
